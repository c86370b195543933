// The device half of the target "cpu".
#pragma once

#include "backends/executable.h"

namespace kiln::cpu {

extern const Device kDevice;

}  // namespace kiln::cpu
