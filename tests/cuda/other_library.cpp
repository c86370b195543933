// A libkiln_cuda of another build.
#include "backends/device_library.h"

extern "C" {
[[gnu::visibility("default")]] kiln::DeviceFunction kiln_device;
}

const kiln::Device* kiln_device(const char*, const char** own) {
  *own = "0.0.9-other";
  return nullptr;
}
