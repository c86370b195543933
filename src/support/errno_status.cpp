#include "support/errno_status.h"

#include <cerrno>
#include <system_error>

namespace kiln {
namespace {

StatusCode code_of(int error_number) {
  switch (error_number) {
    case ENOENT:
      return StatusCode::NotFound;
    case ENOMEM:
      return StatusCode::OutOfMemory;
    default:
      return StatusCode::IoError;
  }
}

}  // namespace

Status errno_status(std::string_view action, std::string_view path, int error_number) {
  std::string message = "cannot ";
  message.append(action).append(" ").append(path).append(": ");
  message += std::generic_category().message(error_number);
  return Status(code_of(error_number), std::move(message));
}

}  // namespace kiln
