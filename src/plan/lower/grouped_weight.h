// Constant right operands of integers with a scale for each group along k: weights of 4 bits, and of 8 with
// groups.
#pragma once

#include <optional>

#include "plan/lower/quantised.h"

namespace kiln::plan {

// What plan::Groups describes, with the constants themselves.
struct GroupedWeight {
  ir::Literal values;                // i8, [n, groups * size], zeros behind k
  ir::Literal scales;                // f32, f16 or bf16, [n, groups]
  std::optional<ir::Literal> zeros;  // i8, [n, groups]
  int64_t size = 0;
  int bits = 8;
};

// Nothing where something is no constant, where scales change along k otherwise than from one group to the next,
// or where an element stands for more than a finite number.
std::optional<GroupedWeight> grouped_weight(const Quantised& weight, const Loop& n, const Loop& k);

}  // namespace kiln::plan
