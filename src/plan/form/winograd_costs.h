// What Winograd's algorithm costs beside the sum as it is written, by the costs that a target states for it.
//
// Tiles of m x m results take (m + 2)^2 products instead of 9 * m * m; what lies beyond the image in the last
// tiles is computed too. Pixels and products are transformed, and there are more weights to read: it loses with few
// channels, and where an image is so small that weights are most of the traffic.
#pragma once

#include "plan/form/program.h"

namespace kiln::plan {

// The results of a side of the tiles that take the least time, for a convolution that it can compute, multiplied in
// f32 either way; 0: the sum as it is written.
int64_t best_winograd_tile(const Convolution& convolution, const WinogradCosts& costs);

// Whether the tiles that were chosen gain beside a sum as it is written whose products take 1 / rate of the time of
// those in f32. That sum has weights as many times smaller, and whoever beats it has as many times less work to wait
// for memory behind.
bool is_worth_winograd(const Convolution& convolution, WinogradCosts costs, int64_t rate);

}  // namespace kiln::plan
