#include "backends/cuda/device/driver.h"

#include <dlfcn.h>

namespace kiln::cuda {
namespace {

struct Driver {
  api::Functions functions;
  int version = 0;
  std::string problem;  // empty: it works

  Driver() { problem = open(); }

  std::string open() {
    void* library = dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL);
    if (library == nullptr)
      return "there is no NVIDIA driver on this machine (libcuda.so.1 was not found)";
#define KILN_CUDA_FIND(name, ...)                                                     \
  functions.name = reinterpret_cast<decltype(functions.name)>(dlsym(library, #name)); \
  if (functions.name == nullptr)                                                      \
    return "the NVIDIA driver is too old: it lacks " #name                            \
           ", which drivers from 525 (CUDA 12.0) have";
    KILN_CUDA_FUNCTIONS(KILN_CUDA_FIND)
#undef KILN_CUDA_FIND
    const api::CUresult result = functions.cuInit(0);
    functions.cuDriverGetVersion(&version);
    if (result == api::kSuccess) return "";
    if (result == api::kNoDevice) return "there is no NVIDIA GPU on this machine";
    const char* name = nullptr;
    functions.cuGetErrorName(result, &name);
    return std::string("the NVIDIA driver does not start: ") +
           (name == nullptr ? std::to_string(result) : name);
  }
};

// Never destroyed: threads may use it while the process ends.
Driver& instance() {
  static Driver& driver = *new Driver;
  return driver;
}

}  // namespace

const api::Functions* find_driver(std::string& reason) {
  reason = instance().problem;
  return reason.empty() ? &instance().functions : nullptr;
}

const api::Functions& driver() { return instance().functions; }

int driver_version() { return instance().version; }

Status error_status(api::CUresult result, const std::string& what) {
  const char *name = nullptr, *text = nullptr;
  driver().cuGetErrorName(result, &name);
  driver().cuGetErrorString(result, &text);
  const std::string error = (name == nullptr ? "error " + std::to_string(result) : name) +
                            (text == nullptr ? "" : std::string(": ") + text);
  if (result != api::kOutOfMemory)
    return Status(StatusCode::Internal, "[cuda] " + what + " failed: " + error);
  size_t free = 0, total = 0;
  driver().cuMemGetInfo_v2(&free, &total);
  return Status(StatusCode::OutOfMemory,
                "[cuda] " + what + " failed for want of memory: " + std::to_string(free >> 20) +
                    " of " + std::to_string(total >> 20) + " MiB are free");
}

}  // namespace kiln::cuda
