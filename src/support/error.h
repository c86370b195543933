// Errors of the compile side. The runtime never throws: see support/status.h.
#pragma once

#include <stdexcept>
#include <string>

namespace kiln {

// The user's: an unsupported model, a wrong option, an unreadable file.
// Message form: "[op] got X, expected Y", with what to do where that is known.
class CompileError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

// Ours: a broken invariant. Reported as "internal error: ..." with a request to file it.
class InternalError : public std::logic_error {
 public:
  using std::logic_error::logic_error;
};

}  // namespace kiln

// Checks an invariant of the compiler, in every build type.
#define KILN_CHECK(condition, ...)                                                       \
  do {                                                                                   \
    if (!(condition)) [[unlikely]]                                                       \
      throw ::kiln::InternalError(std::string(__FILE__ ":") + std::to_string(__LINE__) + \
                                  ": " #condition __VA_OPT__(": " +) __VA_ARGS__);       \
  } while (false)
