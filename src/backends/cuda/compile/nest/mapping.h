// How the loops of a nest are mapped to the threads of a grid.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "backends/cuda/compile/emit/emitter.h"
#include "plan/form/program.h"

namespace kiln::cuda {

// Of a simplified nest. Each writes the body, sets grid and task_writes of the interface, and gives
// the text of the kernel.

// A thread for each point of the outer loops, or for a few neighbours; the loops of the stages run in it.
std::string point_nest_text(KernelContext& context, const plan::LoopNest& nest);

// A thread for each point of each stage, or for a few neighbours: for a nest that stores one buffer in pieces,
// as a concatenation does. A block works on one piece. Nothing if it is not such a nest. Takes the nest as
// the plan has it, not simplified: simplified positions do not show which pieces are apart.
std::optional<std::string> piece_nest_text(KernelContext& context, const plan::LoopNest& nest);

// The threads of a block: `points` groups of `threads` each, a group for an outer point.
struct Group {
  // Rows: neighbouring threads are of one group, a warp or (with one point) a whole block.
  // Columns: neighbouring threads are of neighbouring groups.
  enum Layout { Rows, Columns };
  Layout layout = Rows;
  int threads = 32;
  int points = 1;
};

// A group of threads for each outer point; the loops of the stages are shared out among them.
std::string group_nest_text(KernelContext& context, const plan::LoopNest& nest, const Group& group);

// Tiles through shared memory: for a nest that reads along one outer loop and stores along another.
// Nothing if it is not such a nest.
std::optional<std::string> transpose_nest_text(KernelContext& context, const plan::LoopNest& nest);

// A few neighbouring windows for each thread: for a reduction over windows that overlap. Nothing if it
// is not such a nest.
std::optional<std::string> window_nest_text(KernelContext& context, const plan::LoopNest& nest);

// --- What they share ---

ir::Dim points_of(const std::vector<plan::Loop>& loops);
// At the sizes to optimise for.
int64_t points_at_opt(const std::vector<plan::Loop>& loops);

// The values of loop indices at point `index` of them, the last loop the fastest.
std::vector<ir::Dim> loop_values(const std::vector<plan::Loop>& loops, const ir::Dim& index);

// Declares a variable for each loop, from the number of a point, and binds it. With `lanes`, the last
// loop is counted in steps of so many.
void bind_loops(Emitter& emitter, const std::vector<plan::Loop>& loops, const ir::Dim& index,
                int lanes = 1);
// The outer points may come in any order: neighbouring threads take those of the last loop.
void put_contiguous_last(plan::LoopNest& nest);
// Opens "for (...)" for each of the loops, and binds them; close() as often.
void open_loops(Emitter& emitter, const std::vector<plan::Loop>& loops);

// What a block of so many outer points writes.
void note_writes(KernelContext& context, const plan::LoopNest& nest, const ir::Dim& points);

}  // namespace kiln::cuda
