// A package needs no other library of Kiln's: the device half for GPUs is part of this one.
#include "runtime/devices.h"

#include "backends/cuda/device/executable.h"

namespace {

[[maybe_unused]] const bool kAdded = kiln::runtime::add_device(kiln::cuda::kDevice);

}  // namespace
