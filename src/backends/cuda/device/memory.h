// The memory of GPUs, for the runtime.
#pragma once

#include "support/device_memory.h"

namespace kiln::cuda {

extern const DeviceMemory kGpuMemory;

}  // namespace kiln::cuda
