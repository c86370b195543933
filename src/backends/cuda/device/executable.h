// The device half of the CUDA backend.
#pragma once

#include "backends/executable.h"

namespace kiln::cuda {

extern const Device kDevice;

}  // namespace kiln::cuda
