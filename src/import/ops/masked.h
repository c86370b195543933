// Writing elements that a mask selects.
#pragma once

#include "import/ops/common.h"

namespace kiln::import {

// A mask, for the axes of a tensor from `axis` on.
struct MaskIndex {
  Value* mask;
  size_t axis;
};

// x[.., mask, ..] = values, or += if `accumulate`.
Value* put_masked(Call& call, Value* x, const MaskIndex& index, Value* values, bool accumulate);

}  // namespace kiln::import
