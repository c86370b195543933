// The compile half of the CPU backend.
#pragma once

#include "backends/backend.h"

namespace kiln {

// The target "cpu". Variants: "x86-64-v4" and "x86-64-v3".
const Backend& cpu_backend();

}  // namespace kiln
