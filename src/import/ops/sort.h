// Places in sorted rows.
#pragma once

#include "import/ops/common.h"

namespace kiln::import {

// How many elements of each sorted row come before the value, or are not behind it if `right`: i64, or i32 if `out_int32` says so.
Value* search_sorted(Call& call, const Operand& sequence, const Operand& value, bool right);

}  // namespace kiln::import
