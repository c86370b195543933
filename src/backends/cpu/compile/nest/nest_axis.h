// Which loop of a nest the lanes of vectors run along.
#pragma once

#include <optional>
#include <vector>

#include "plan/form/program.h"

namespace kiln::cpu {

struct VectorAxes {
  // An outer loop: all stages compute for neighbouring points of it at once.
  std::optional<size_t> outer;
  // Otherwise, for each stage, one of its own loops; reductions then end with a sum over lanes.
  std::vector<std::optional<size_t>> inner;
};

// The cheapest by a model: accesses that are contiguous along the lanes are cheap, gathers are not.
// The nest is simplified.
VectorAxes choose_axes(const plan::LoopNest& nest);

// Estimated operations of one task of `points` points of the outer loops.
int64_t estimated_work(const plan::LoopNest& nest, int64_t points);

}  // namespace kiln::cpu
