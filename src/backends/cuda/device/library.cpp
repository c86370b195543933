// libkiln_cuda's face.
#include <cstring>

#include "backends/cuda/device/executable.h"
#include "backends/device_library.h"

extern "C" {
[[gnu::visibility("default")]] kiln::DeviceFunction kiln_device;
}

const kiln::Device* kiln_device(const char* caller, const char** own) {
  *own = KILN_DEVICE_INTERFACE;
  return std::strcmp(caller, *own) == 0 ? &kiln::cuda::kDevice : nullptr;
}
