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

// Values for all places of a mask, bool[n], of values for those that it selects along an axis: n along that axis, or what they
// were where one value stands for all or there is no such axis. Ends the run where their numbers differ.
Value* spread_values(Call& call, Value* mask, Value* values, int64_t axis);

}  // namespace kiln::import
