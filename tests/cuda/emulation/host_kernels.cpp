#include "cuda/emulation/host_kernels.h"

#include <dlfcn.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <future>
#include <regex>
#include <set>
#include <stdexcept>
#include <string_view>

namespace kiln::test {
namespace {

namespace fs = std::filesystem;

// Two compilers run at a time, each with half of the kernels.
constexpr size_t kParts = 2;

struct Replacement {
  const char* from;
  const char* to;
};

// Instructions, and what cuda_on_host.h has instead.
constexpr Replacement kInstructions[] = {
    {R"(asm("cvt.f32.f16 %0, %1;" : "=f"(result) : "h"(x.bits));)",
     "result = kiln_host_from_half(x.bits);"},
    {R"(asm("cvt.rn.f16.f32 %0, %1;" : "=h"(result.bits) : "f"(x));)",
     "result.bits = kiln_host_to_half(x);"},
    {R"(asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(result.bits) : "f"(x));)",
     "result.bits = kiln_host_to_bfloat(x);"},
    {R"(asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(result) : "f"(x));)", "result = exp2f(x);"},
    {R"(asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(result) : "f"(x));)", "result = 1.0f / x;"},
    {R"(asm("max.NaN.f32 %0, %1, %2;" : "=f"(result) : "f"(a), "f"(b));)",
     "result = max_nan(a, b);"},
    {R"(asm("min.NaN.f32 %0, %1, %2;" : "=f"(result) : "f"(a), "f"(b));)",
     "result = min_nan(a, b);"},
};

std::string replace_instructions(std::string text) {
  for (const auto& [from, to] : kInstructions) {
    for (size_t at = 0; (at = text.find(from, at)) != std::string::npos;)
      text.replace(at, std::string(from).size(), to);
  }
  if (text.find("asm(") != std::string::npos)
    throw std::runtime_error("an instruction that the host has not: " +
                             text.substr(text.find("asm("), 80));
  return text;
}

std::string_view shortest_front(const std::vector<std::string>& texts, size_t first) {
  std::string_view result = texts[first];
  for (size_t i = first; i < texts.size(); i += kParts) {
    const size_t kernel = texts[i].find("extern \"C\" __global__");
    if (kernel < result.size()) result = std::string_view(texts[i]).substr(0, kernel);
  }
  return result;
}

// A file with the kernels number first, first + kParts, ...
void write_part(const fs::path& file, const std::vector<std::string>& texts, size_t first) {
  static const std::regex kSignature(
      R"(extern "C" __global__ void __launch_bounds__\([0-9, ]*\) kernel\()");
  std::ofstream out(file);
  out << "#include \"cuda/emulation/cuda_on_host.h\"\nusing namespace std;\n";
  // What stands in front of a kernel: the same for all, and behind that the texts that some use.
  std::string_view common;
  std::set<std::string_view> others = {""};
  for (size_t i = first; i < texts.size(); i += kParts) {
    const size_t kernel = texts[i].find("extern \"C\" __global__");
    const std::string_view front = std::string_view(texts[i]).substr(0, kernel);
    if (i == first) {
      common = shortest_front(texts, first);
      common.remove_suffix(1);  // the end of the line in front of the kernel
      out << replace_instructions(std::string(common));
    }
    if (!front.starts_with(common)) throw std::runtime_error("kernels begin with other texts");
    const std::string_view other = front.substr(common.size());
    if (others.insert(other).second) out << replace_instructions(std::string(other));
    const std::string number = std::to_string(i);
    out << std::regex_replace(replace_instructions(texts[i].substr(kernel)), kSignature,
                              "static void kernel_" + number + "(");
    out << "extern \"C\" void entry_" << number << "(void** arguments) { call(kernel_" << number
        << ", arguments); }\n";
  }
}

void run_command(const std::string& command) {
  if (std::system(command.c_str()) != 0) throw std::runtime_error("failed: " + command);
}

}  // namespace

HostKernels::HostKernels(const std::vector<std::string>& texts) {
  std::string folder = (fs::temp_directory_path() / "kiln_host_kernels_XXXXXX").string();
  if (mkdtemp(folder.data()) == nullptr) throw std::runtime_error("no temporary folder");
  const std::string compiler = KILN_HOST_COMPILER;
  std::string objects;
  std::vector<std::future<void>> parts;
  for (size_t part = 0; part < kParts; ++part) {
    const std::string file = folder + "/part" + std::to_string(part);
    write_part(file + ".cpp", texts, part);
    objects += " " + file + ".o";
    parts.push_back(std::async(std::launch::async, run_command,
                               compiler + " -std=c++17 -O1 -w -fPIC -fno-strict-aliasing " +
                                   "-ffp-contract=off -I" + KILN_HOST_INCLUDES + " -c " + file +
                                   ".cpp -o " + file + ".o"));
  }
  for (auto& part : parts) part.get();
  run_command(compiler + " -shared -o " + folder + "/kernels.so" + objects);
  library_ = dlopen((folder + "/kernels.so").c_str(), RTLD_NOW);
  const std::string problem = library_ == nullptr ? dlerror() : "";
  fs::remove_all(folder);
  if (!problem.empty()) throw std::runtime_error(problem);
}

HostKernel HostKernels::find(size_t number) const {
  return reinterpret_cast<HostKernel>(dlsym(library_, ("entry_" + std::to_string(number)).c_str()));
}

}  // namespace kiln::test
