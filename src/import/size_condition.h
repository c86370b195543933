// Conditions on sizes that a requirement (ir::Requirement) asks for: 1 where they hold, and 0 where they do not.
#pragma once

#include "ir/dim.h"

namespace kiln::import {

inline ir::Dim is_at_most(const ir::Dim& size, const ir::Dim& most) {
  return ir::Dim(1) - ir::min(1, ir::max(size - most, 0));
}

inline ir::Dim is_equal(const ir::Dim& a, const ir::Dim& b) {
  return ir::Dim(1) - ir::min(1, ir::max(a - b, b - a));
}

}  // namespace kiln::import
