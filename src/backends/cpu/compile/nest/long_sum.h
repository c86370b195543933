// Sums of many terms.
//
// A floating sum that adds n terms one after another may be off by n roundings of a sum that has grown large; in f32
// 2^24 terms of 0.1 lose a quarter of a percent. So a chain of additions ends after a bounded number of terms, and
// what chains gave is added up: "blocked summation" (Higham, "The accuracy of floating point summation", 1993), with an
// error of the length of a chain and the number of chains instead of their product.
#pragma once

#include <functional>

#include "backends/cpu/compile/nest/lane_loop.h"

namespace kiln::cpu {

// Runs body(range, state) for parts of the last of `loops`, inside of the others, with states of one reduction carried
// from part to part; of a long floating sum each chain begins with `initial`. One state takes every `terms_apart`-th
// point of the last loop.
using RangeBody = std::function<State(const LaneRange&, const State&)>;
State reduce_in_chains(Emitter& emitter, const Reducer& reducer,
                       const std::vector<plan::Loop>& loops, int64_t terms_apart,
                       const State& initial, const RangeBody& body);

// The points of a range one by one; the loop's index is bound.
State each_point(Emitter& emitter, const LaneRange& range, const State& state,
                 const std::function<State(const State&)>& body);

}  // namespace kiln::cpu
