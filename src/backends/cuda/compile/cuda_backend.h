#pragma once

#include "backends/backend.h"

namespace kiln {

// Programs for NVIDIA GPUs, a variant for each generation: "sm_80", "sm_86", "sm_89" and "sm_90"; and
// "compute_90", PTX for those that came later.
const Backend& cuda_backend();

}  // namespace kiln
