// Two sizes that an operator needs to be equal, and that are different expressions which may have one value.
#pragma once

#include <string>
#include <utility>

#include "ir/dim.h"
#include "support/error.h"

namespace kiln::ir {

// Not proven equal while compiling. What can make them one size (import/equal_sizes.h) leaves the question to the run.
class UnequalSizes : public CompileError {
 public:
  UnequalSizes(const std::string& what, Dim first, Dim second)
      : CompileError(what), a(std::move(first)), b(std::move(second)) {}

  Dim a, b;
};

// Whether some values of the symbols may make them equal.
inline bool may_be_equal(const Dim& a, const Dim& b) {
  const Dim difference = a - b;
  return difference.lower_bound() <= 0 && difference.upper_bound() >= 0;
}

}  // namespace kiln::ir
