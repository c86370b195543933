// How a command fails: Failure ends the program with 1, UsageError with 2.
#pragma once

#include <stdexcept>
#include <string>

#include "kiln/kiln.h"

namespace tools {

class Failure : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

class UsageError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

}  // namespace tools
