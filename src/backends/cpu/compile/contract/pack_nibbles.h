// Weights of 4 bits in the order in which the kernels read them: [panels][K / 8][panel width] lanes of 32 bits. A lane
// has eight steps of K of one column, so that a vector of lanes is a load, and a step of it a shift. Their order is that of
// nibble_place(): what looks bytes up (group_lookup.h) meets steps 0 and 1, 2 and 3 and so on side by side. K is
// padded with zeros to whole lanes, and N to whole panels.
#pragma once

#include "backends/cpu/compile/contract/pack.h"

namespace kiln::cpu {

// Steps of K in a lane.
inline constexpr int64_t kNibbleSteps = 8;

// Which four bits of a lane a step has: its number with the three bits reversed.
constexpr int64_t nibble_place(int64_t step) { return step % 2 * 4 + step / 2 % 2 * 2 + step / 4; }

// Of a literal of i8 in [-8, 7].
ir::Literal pack_nibbles(const ir::Literal& literal, const ConstantMatrix& matrix, int64_t width);

}  // namespace kiln::cpu
