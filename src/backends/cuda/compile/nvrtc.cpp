#include "backends/cuda/compile/nvrtc.h"

#include <dlfcn.h>

#include <array>
#include <cstdlib>
#include <filesystem>
#include <span>
#include <string_view>

#include "support/error.h"

namespace kiln::cuda {
namespace {

// What is used of nvrtc.h, whose C ABI is the same in all versions since 11.
using Result = int;  // 0: success
using NvrtcProgram = struct Opaque*;

struct Library {
  Result (*version)(int* major, int* minor) = nullptr;
  const char* (*error_string)(Result result) = nullptr;
  Result (*create)(NvrtcProgram* program, const char* text, const char* name, int headers,
                   const char* const* header_texts, const char* const* header_names) = nullptr;
  Result (*compile)(NvrtcProgram program, int options, const char* const* option_texts) = nullptr;
  Result (*log_size)(NvrtcProgram program, size_t* bytes) = nullptr;
  Result (*log)(NvrtcProgram program, char* text) = nullptr;
  Result (*cubin_size)(NvrtcProgram program, size_t* bytes) = nullptr;
  Result (*cubin)(NvrtcProgram program, char* bytes) = nullptr;
  Result (*ptx_size)(NvrtcProgram program, size_t* bytes) = nullptr;
  Result (*ptx)(NvrtcProgram program, char* text) = nullptr;
  Result (*destroy)(NvrtcProgram* program) = nullptr;
  std::string identity;  // of the file: builds of one version may differ
  std::string obstacle;  // why there is none; empty if there is
};

template <typename Function>
bool find(void* handle, const char* name, Function& function) {
  function = reinterpret_cast<Function>(dlsym(handle, name));
  return function != nullptr;
}

bool find_functions(void* handle, Library& library) {
  return find(handle, "nvrtcVersion", library.version) &&
         find(handle, "nvrtcGetErrorString", library.error_string) &&
         find(handle, "nvrtcCreateProgram", library.create) &&
         find(handle, "nvrtcCompileProgram", library.compile) &&
         find(handle, "nvrtcGetProgramLogSize", library.log_size) &&
         find(handle, "nvrtcGetProgramLog", library.log) &&
         find(handle, "nvrtcGetCUBINSize", library.cubin_size) &&
         find(handle, "nvrtcGetCUBIN", library.cubin) &&
         find(handle, "nvrtcGetPTXSize", library.ptx_size) &&
         find(handle, "nvrtcGetPTX", library.ptx) &&
         find(handle, "nvrtcDestroyProgram", library.destroy);
}

constexpr std::array<const char*, 2> kNames = {"libnvrtc.so.13", "libnvrtc.so.12"};

// Of the file that a function of the library is in.
std::filesystem::path path_of(const Library& library) {
  Dl_info info = {};
  if (dladdr(reinterpret_cast<void*>(library.version), &info) == 0 || info.dli_fname == nullptr)
    return {};
  return info.dli_fname;
}

void* open_file(const std::filesystem::path& file) {
  std::error_code error;
  if (!std::filesystem::exists(file, error)) return nullptr;
  return dlopen(file.c_str(), RTLD_NOW | RTLD_LOCAL);
}

// NVRTC asks the loader for libnvrtc-builtins by its plain name, which finds it if it is loaded
// already: so it is loaded beforehand, from the folder that NVRTC is in.
void load_builtins(const Library& library) {
  std::error_code error;
  const std::filesystem::path folder = path_of(library).parent_path();
  if (folder.empty()) return;
  for (const auto& entry : std::filesystem::directory_iterator(folder, error)) {
    if (entry.path().filename().string().starts_with("libnvrtc-builtins.so."))
      dlopen(entry.path().c_str(), RTLD_NOW | RTLD_GLOBAL);
  }
}

std::string identity_of(const Library& library) {
  std::error_code error;
  int major = 0, minor = 0;
  library.version(&major, &minor);
  std::string text = std::to_string(major) + "." + std::to_string(minor);
  const std::filesystem::path file = std::filesystem::canonical(path_of(library), error);
  const auto size = std::filesystem::file_size(file, error);
  return text + ";" + file.filename().string() + ";" + (error ? "" : std::to_string(size));
}

std::vector<std::filesystem::path> folders() {
  std::vector<std::filesystem::path> result;
  // What the Python package found beside the Python that runs.
  if (const char* list = std::getenv("KILN_CUDA_LIBRARIES")) {
    std::string_view rest = list;
    while (!rest.empty()) {
      const size_t end = std::min(rest.find(':'), rest.size());
      if (end > 0) result.emplace_back(rest.substr(0, end));
      rest.remove_prefix(std::min(end + 1, rest.size()));
    }
  }
  return result;
}

void* open_library() {
  for (const char* name : kNames) {
    if (void* loaded = dlopen(name, RTLD_NOW | RTLD_NOLOAD)) return loaded;
  }
  if (const char* file = std::getenv("KILN_NVRTC")) return open_file(file);
  for (const std::filesystem::path& folder : folders()) {
    for (const char* name : kNames) {
      if (void* found = open_file(folder / name)) return found;
    }
  }
  for (const char* name : kNames) {
    if (void* found = dlopen(name, RTLD_NOW)) return found;
  }
  for (const char* name : kNames) {
    if (void* found = open_file(std::filesystem::path("/usr/local/cuda/lib64") / name))
      return found;
  }
  return nullptr;
}

Library load() {
  Library library;
  void* handle = open_library();
  const char* file = std::getenv("KILN_NVRTC");
  if (handle == nullptr && file != nullptr) {
    library.obstacle = "[cuda] got KILN_NVRTC=" + std::string(file) +
                       ", expected the path of NVRTC: libnvrtc.so.13 or .12";
  } else if (handle == nullptr) {
    library.obstacle =
        "[cuda] NVRTC (libnvrtc.so.13 or .12), which compiles kernels, was not found: "
        "pip install nvidia-cuda-nvrtc, or set KILN_NVRTC to the path of the library";
  } else if (!find_functions(handle, library)) {
    library.obstacle = "[cuda] got an NVRTC without the functions of version 12 or 13";
  } else {
    load_builtins(library);
    library.identity = identity_of(library);
  }
  return library;
}

// Found once; never unloaded.
const Library& library() {
  static const Library kLibrary = load();
  return kLibrary;
}

const Library& require_library() {
  if (!library().obstacle.empty()) throw CompileError(library().obstacle);
  return library();
}

// A program of NVRTC, destroyed with the object.
class Program {
 public:
  Program(const Library& library, const std::string& text) : library_(library) {
    check(library_.create(&program_, text.c_str(), "kernel.cu", 0, nullptr, nullptr));
  }
  ~Program() { library_.destroy(&program_); }
  Program(const Program&) = delete;
  Program& operator=(const Program&) = delete;

  void compile(const std::vector<std::string>& options) {
    std::vector<const char*> texts;
    for (const std::string& option : options) texts.push_back(option.c_str());
    const Result result = library_.compile(program_, static_cast<int>(texts.size()), texts.data());
    if (result != 0)
      throw InternalError("[cuda] NVRTC: " + std::string(library_.error_string(result)) + "\n" +
                          log());
  }

  std::string log() const {
    size_t bytes = 0;
    check(library_.log_size(program_, &bytes));
    std::string text(bytes, '\0');
    if (bytes > 0) check(library_.log(program_, text.data()));
    while (!text.empty() && (text.back() == '\0' || text.back() == '\n')) text.pop_back();
    return text;
  }

  std::vector<std::byte> cubin() const {
    size_t bytes = 0;
    check(library_.cubin_size(program_, &bytes));
    std::vector<std::byte> result(bytes);
    check(library_.cubin(program_, reinterpret_cast<char*>(result.data())));
    return result;
  }

  // Ends with a zero byte.
  std::vector<std::byte> ptx() const {
    size_t bytes = 0;
    check(library_.ptx_size(program_, &bytes));
    std::vector<std::byte> result(bytes);
    check(library_.ptx(program_, reinterpret_cast<char*>(result.data())));
    return result;
  }

 private:
  void check(Result result) const {
    if (result != 0)
      throw InternalError("[cuda] NVRTC: " + std::string(library_.error_string(result)));
  }

  const Library& library_;
  NvrtcProgram program_ = nullptr;
};

// Products and sums stay apart unless the text joins them (fma): results do not depend on what the
// compiler finds. Generated text declares variables that it then does not use (177), and templates
// compare numbers without sign with zero (186, 514).
std::vector<std::string> options_for(const Target& target) {
  return {"--gpu-architecture=" + std::string(target.arch), "--std=c++17", "-default-device",
          "--fmad=false", "--diag-suppress=177,186,514"};
}

}  // namespace

Compiled compile_text(const std::string& text, const Target& target, bool verbose) {
  Program program(require_library(), text);
  std::vector<std::string> options = options_for(target);
  if (verbose) options.push_back("--ptxas-options=-v");
  program.compile(options);
  return {target.is_ptx ? program.ptx() : program.cubin(), program.log()};
}

Hash128 code_key(const std::string& text, const Target& target) {
  std::string key = "NVRTC " + require_library().identity + (target.is_ptx ? ";ptx" : ";cubin");
  for (const std::string& option : options_for(target)) key += ";" + option;
  key += "\n" + text;
  return hash128(std::as_bytes(std::span(key)));
}

std::string nvrtc_obstacle() { return library().obstacle; }

std::string nvrtc_version() {
  if (!library().obstacle.empty()) return "";
  int major = 0, minor = 0;
  if (library().version(&major, &minor) != 0) return "";
  return std::to_string(major) + "." + std::to_string(minor);
}

}  // namespace kiln::cuda
