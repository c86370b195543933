// Opens device halves that are libraries of their own.
#pragma once

#include <string>

#include "backends/executable.h"
#include "support/status.h"

namespace kiln::runtime {

// Opens the library `file`, a name without a folder, beside the library or program that this code is
// in, and never closes it. Unsupported, with where it was looked for, if it is not there, does not
// open or is of another build.
Result<const Device*> open_device_library(const std::string& target, const std::string& file);

}  // namespace kiln::runtime
