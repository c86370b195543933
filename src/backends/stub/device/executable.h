// The device half of the stub backend.
#pragma once

#include "backends/executable.h"

namespace kiln::stub {

extern const Device kDevice;

}  // namespace kiln::stub
