// kiln inspect: what is in an engine file.
#include <cstdio>
#include <fstream>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "arrays.h"
#include "command_line.h"
#include "commands.h"
#include "cubin.h"
#include "failure.h"

namespace tools {
namespace {

using nlohmann::ordered_json;

struct InspectArguments {
  std::string engine, target, kernel, code;
  bool json = false;
};

std::string text_at(const ordered_json& object, const char* key) {
  const ordered_json& value = object.at(key);
  return value.is_string() ? value.get<std::string>() : value.dump();
}

// "12.3 MB", "456 bytes"; "unknown" for null.
std::string bytes_text(const ordered_json& bytes) {
  if (bytes.is_null()) return "unknown";
  const double count = bytes.get<double>();
  char text[32];
  if (count < 10e3)
    std::snprintf(text, sizeof(text), "%.0f bytes", count);
  else if (count < 10e6)
    std::snprintf(text, sizeof(text), "%.1f kB", count / 1e3);
  else
    std::snprintf(text, sizeof(text), "%.1f MB", count / 1e6);
  return text;
}

void print_tensors(const char* title, const std::vector<kiln_tensor_info>& infos,
                   const ordered_json& described) {
  std::printf("%s\n", title);
  for (size_t i = 0; i < infos.size(); ++i)
    std::printf("  %s: %s  %s\n", infos[i].name, type_text(infos[i]).c_str(),
                text_at(described.at(i), "shape").c_str());
}

void print_memory(const ordered_json& memory) {
  const bool stripped = memory.at("stripped").get<bool>();
  std::printf("memory\n  weights %s\n", stripped ? "stripped: fill them in with kiln refit"
                                                 : bytes_text(memory.at("weights_bytes")).c_str());
  std::printf("  workspace %s at opt, %s at min, %s at max\n",
              bytes_text(memory.at("workspace_bytes_at_opt")).c_str(),
              bytes_text(memory.at("workspace_bytes_at_min")).c_str(),
              bytes_text(memory.at("workspace_bytes_at_max")).c_str());
}

// "cpu:x86-64-v4"
std::string name_text(const ordered_json& program) {
  const std::string variant = text_at(program, "variant");
  return text_at(program, "target") + (variant.empty() ? "" : ":") + variant;
}

void print_programs(const ordered_json& programs) {
  std::printf("programs\n");
  for (const ordered_json& program : programs) {
    std::string needs;
    for (const ordered_json& feature : program.at("needs"))
      needs += " " + feature.get<std::string>();
    std::printf("  %s: %s of code, needs%s (%s)\n", name_text(program).c_str(),
                bytes_text(program.at("code_bytes")).c_str(),
                needs.empty() ? " nothing more" : needs.c_str(),
                program.at("runs_here").get<bool>()
                    ? "runs here"
                    : ("does not run here: " + text_at(program, "obstacle")).c_str());
  }
}

std::string sources_text(const ordered_json& kernel) {
  std::string sources;
  for (const ordered_json& source : kernel.at("sources"))
    sources += (sources.empty() ? "" : ", ") + source.get<std::string>();
  return sources;
}

// "40 registers, 2048 bytes of shared memory, 8 bytes of stack"; "" for a kernel of a CPU.
std::string resources_text(const ordered_json& kernel) {
  if (!kernel.contains("registers")) return "";
  const std::string stack = bytes_text(kernel.at("stack_bytes"));
  return text_at(kernel, "registers") + " registers, " + bytes_text(kernel.at("shared_bytes")) +
         " shared" + (kernel.at("stack_bytes") == 0 ? "" : ", " + stack + " of stack");
}

// How many there are of each kind, then each with the values of the model that it computes.
void print_kernels(const ordered_json& kernels) {
  std::map<std::string, int> kinds;
  for (const ordered_json& kernel : kernels) ++kinds[text_at(kernel, "kind")];
  std::printf("kernels: %zu", kernels.size());
  for (const auto& [kind, count] : kinds) std::printf(", %d %s", count, kind.c_str());
  std::printf("\n");
  for (const ordered_json& kernel : kernels) {
    std::string resources = resources_text(kernel);
    if (text_at(kernel, "kind") == "custom") resources = "calls " + text_at(kernel, "function");
    std::printf("  %-32s %-12s %s%s\n", text_at(kernel, "name").c_str(),
                text_at(kernel, "kind").c_str(), sources_text(kernel).c_str(),
                resources.empty() ? "" : ("  (" + resources + ")").c_str());
  }
}

// Kernels of the user's own.
void print_needed(const ordered_json& names) {
  if (names.empty()) return;
  std::printf("needs kernels of your own (--kernels, kiln.load_kernels)\n");
  for (const ordered_json& name : names) std::printf("  %s\n", name.get<std::string>().c_str());
}

void print_sections(const ordered_json& sections) {
  std::printf("sections\n");
  for (const ordered_json& section : sections)
    std::printf("  %-26s at %-10s %-12s %s\n", text_at(section, "name").c_str(),
                text_at(section, "offset").c_str(), bytes_text(section.at("size")).c_str(),
                text_at(section, "hash").c_str());
}

void print_description(const kiln::Engine& engine, const ordered_json& description) {
  std::printf("engine %s, made by %s, format %s\n", text_at(description, "name").c_str(),
              text_at(description, "producer").c_str(),
              text_at(description, "format_version").c_str());
  std::printf("content %s\n", text_at(description, "content_hash").c_str());
  std::printf("plan %s%s\n", text_at(description, "program_hash").c_str(),
              description.at("refittable").get<bool>() ? ", refittable with any weights" : "");
  print_tensors("inputs", inputs_of(engine), description.at("inputs"));
  print_tensors("outputs", outputs_of(engine), description.at("outputs"));
  print_programs(description.at("programs"));
  std::printf("the program %s %s here\n", name_text(description).c_str(),
              description.at("runs_here").get<bool>() ? "is what runs" : "does not run");
  print_memory(description.at("memory"));
  print_needed(description.at("custom_kernels"));
  print_kernels(description.at("kernels"));
  print_sections(description.at("sections"));
}

// The code of the program that is described.
std::vector<std::byte> read_code(const std::string& path, const ordered_json& description) {
  for (const ordered_json& section : description.at("sections")) {
    if (text_at(section, "name") != "code:" + name_text(description)) continue;
    std::vector<std::byte> code(section.at("size").get<size_t>());
    std::ifstream file(path, std::ios::binary);
    file.seekg(section.at("offset").get<std::streamoff>());
    file.read(reinterpret_cast<char*>(code.data()), static_cast<std::streamsize>(code.size()));
    if (!file) throw Failure("cannot read the code in " + path);
    return code;
  }
  return {};
}

// What the code of a kernel begins with. None of a CPU's, which have one image together.
std::span<const std::byte> code_of(const ordered_json& kernel, std::span<const std::byte> code) {
  const size_t entry = kernel.value("entry", code.size());
  return code.subspan(std::min(entry, code.size()));
}

void add_resources(ordered_json& description, std::span<const std::byte> code) {
  for (ordered_json& kernel : description.at("kernels")) {
    if (!kernel.contains("function")) continue;
    const auto resources = resources_of(code_of(kernel, code), text_at(kernel, "function"));
    if (!resources) continue;
    kernel["registers"] = resources->registers;
    kernel["shared_bytes"] = resources->shared_bytes;
    kernel["stack_bytes"] = resources->stack_bytes;
  }
}

const ordered_json& find_kernel(const ordered_json& description, const std::string& name) {
  std::string names;
  for (const ordered_json& kernel : description.at("kernels")) {
    if (text_at(kernel, "name") == name) return kernel;
    names += (names.empty() ? "" : ", ") + text_at(kernel, "name");
  }
  throw Failure("got the kernel \"" + name + "\", expected one of " + name_text(description) +
                ": " + names);
}

void write_code(std::span<const std::byte> code, const std::string& path) {
  std::ofstream file(path, std::ios::binary);
  file.write(reinterpret_cast<const char*>(code.data()), static_cast<std::streamsize>(code.size()));
  if (!file.flush()) throw Failure("cannot write " + path);
}

// An engine has the machine code of kernels: the text that it was compiled from is a dump of the compile.
void print_kernel(const InspectArguments& arguments, const ordered_json& description,
                  std::span<const std::byte> code) {
  const ordered_json& kernel = find_kernel(description, arguments.kernel);
  const std::span<const std::byte> cubin = cubin_in(code_of(kernel, code));
  const std::span<const std::byte> ptx = ptx_in(code_of(kernel, code));
  std::printf("kernel %s of %s: %s\n", arguments.kernel.c_str(), name_text(description).c_str(),
              text_at(kernel, "kind").c_str());
  std::printf("computes %s\n", sources_text(kernel).c_str());
  if (text_at(kernel, "kind") == "custom") {
    std::printf("calls %s, a kernel of your own, with the arguments %s\n",
                text_at(kernel, "function").c_str(), text_at(kernel, "arguments").c_str());
    return;
  }
  if (cubin.empty() && ptx.empty()) {
    std::printf(
        "The engine has its machine code, in one image with that of other kernels, and not its "
        "text: the plan that it is made of is in what kiln compile --dump-dir writes.\n");
    if (!arguments.code.empty())
      throw Failure("--code: kernels of " + text_at(description, "target") +
                    " have no files of their own");
    return;
  }
  if (cubin.empty())
    std::printf("%s of PTX, which the driver compiles for its GPU\n",
                bytes_text(ptx.size()).c_str());
  else
    std::printf("%s, %s of code\n", resources_text(kernel).c_str(),
                bytes_text(cubin.size()).c_str());
  if (!arguments.code.empty()) write_code(cubin.empty() ? ptx : cubin, arguments.code);
  std::printf(
      "The engine has its %s and not its text: kiln compile --dump-dir writes that of all "
      "kernels, as %s_%s.cu; --code writes the code as a file for %s.\n",
      cubin.empty() ? "PTX" : "machine code", text_at(description, "variant").c_str(),
      arguments.kernel.c_str(), cubin.empty() ? "ptxas" : "nvdisasm and cuobjdump");
}

void inspect(const InspectArguments& arguments) {
  const kiln::Engine engine = kiln::Engine::load_file(
      arguments.engine, {.target = arguments.target, .describe_only = true});
  ordered_json description = ordered_json::parse(engine.describe());
  const std::vector<std::byte> code = read_code(arguments.engine, description);
  add_resources(description, code);
  if (!arguments.kernel.empty())
    print_kernel(arguments, description, code);
  else if (arguments.json)
    std::printf("%s\n", description.dump(2).c_str());
  else
    print_description(engine, description);
}

}  // namespace

void add_inspect(CommandLine& line) {
  auto arguments = std::make_shared<InspectArguments>();
  Command command = line.add("inspect", "Show what is in an engine file");
  command.option("engine", arguments->engine, "The engine file", {.required = true});
  command.flag("--json", arguments->json, "Print JSON");
  command.option("--target", arguments->target,
                 "The program to show in full: cpu, cuda:sm_90 (default: the first that this "
                 "machine runs)");
  command.option("--kernel", arguments->kernel, "Show one kernel of it", {.excludes = "--json"});
  command.option("--code", arguments->code, "Write the code of the kernel to this file",
                 {.needs = "--kernel"});
  command.action([arguments] { inspect(*arguments); });
}

}  // namespace tools
