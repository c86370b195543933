// Channels-last operands are computed channels-first.
#pragma once

#include "backends/reference/tensor.h"

namespace kiln::reference {

// [N, spatial.., C] -> [N, C, spatial..]
Literal channels_first(const Literal& x);
// [N, C, spatial..] -> [N, spatial.., C]
Literal channels_last(const Literal& x);

}  // namespace kiln::reference
