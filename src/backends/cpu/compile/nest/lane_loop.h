// Loops over vectors, and nests of scalar loops, with values carried around them.
#pragma once

#include <functional>
#include <vector>

#include "backends/cpu/compile/emit/emitter.h"
#include "backends/cpu/compile/nest/reducer.h"

namespace kiln::cpu {

using State = Reducer::State;

// The part [begin, end) of a loop; begin is a multiple of the lanes of every target.
struct LaneRange {
  plan::Loop loop;
  ir::Dim begin, end;
};

// Runs body(lanes, n, state) along a range: n = `copies` vectors at a time while there are as many
// (the lanes are those of the first), then one at a time, then a masked one.
using LaneBody = std::function<State(const Lanes&, int, const State&)>;
State for_lanes_carrying(Emitter& emitter, const LaneRange& range, int copies, State state,
                         const LaneBody& body);
void for_lanes(Emitter& emitter, const LaneRange& range, int copies,
               const std::function<void(const Lanes&, int)>& body);

// The loops one inside the other; their indices are bound.
State nested_loops(Emitter& emitter, const std::vector<plan::Loop>& loops, const State& state,
                   const std::function<State(const State&)>& body);

// A long loop of lanes is cut in blocks, so that there is something to share between threads: runs
// body(range) for each point of `rows` and each block. Sets interface().tasks; `work` is the number
// of operations for one point of the lanes' loop. Gives the most lanes that a block has.
ir::Dim for_each_block(Emitter& emitter, std::vector<plan::Loop> rows, const plan::Loop& lane,
                       int64_t work, const std::function<void(const LaneRange&)>& body);

// States of several reductions, one after another.
State repeated(const State& state, size_t copies);
State copy_of(const State& state, size_t copy, size_t copies);
void append(State& state, const State& more);

}  // namespace kiln::cpu
