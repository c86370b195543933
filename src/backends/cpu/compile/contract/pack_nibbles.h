// Weights of 4 bits in the order in which the kernels read them: [panels][K / 8][panel width] lanes of 32 bits. A lane
// has eight steps of K of one column, the first in its lowest bits, so that a vector of lanes is a load, and a
// step of it a shift. K is padded with zeros to whole lanes, and N to whole panels.
#pragma once

#include "backends/cpu/compile/contract/pack.h"

namespace kiln::cpu {

// Steps of K in a lane.
inline constexpr int64_t kNibbleSteps = 8;

// Of a literal of i8 in [-8, 7].
ir::Literal pack_nibbles(const ir::Literal& literal, const ConstantMatrix& matrix, int64_t width);

}  // namespace kiln::cpu
