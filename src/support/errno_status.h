// System call failures as statuses.
#pragma once

#include <string>
#include <string_view>

#include "support/status.h"

namespace kiln {

// "cannot <action> <path>: <text of the error number>". ENOENT is NotFound, ENOMEM OutOfMemory,
// anything else IoError.
Status errno_status(std::string_view action, std::string_view path, int error_number);

}  // namespace kiln
