// The compile half of the stub backend.
#pragma once

#include "backends/backend.h"

namespace kiln {

const Backend& stub_backend();

}  // namespace kiln
