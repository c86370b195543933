// How a command fails: Failure ends the program with 1 (as kiln::Error does), UsageError with 2.
#pragma once

#include <stdexcept>
#include <string>

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
