#include "backends/cpu/compile/nest/lane_loop.h"

#include <algorithm>

#include "backends/cpu/compile/emit/thread_work.h"
#include "backends/cpu/compile/nest/tasks.h"
#include "ir/size_overflow.h"

namespace kiln::cpu {

using ir::Dim;
using llvm::Value;

namespace {

constexpr int64_t kBlockWork = 8 * 1024;
// Blocks are whole groups of four vectors on every target.
constexpr int64_t kBlockUnit = 64, kLargestBlock = 4096;

int64_t block_size(int64_t work) {
  const int64_t wanted = kBlockWork / std::max<int64_t>(1, work);
  return std::clamp(wanted / kBlockUnit * kBlockUnit, kBlockUnit, kLargestBlock);
}

// begin + the whole multiples of `step` (a power of two) up to end.
Value* rounded_down(Emitter& emitter, Value* begin, Value* end, int64_t step) {
  auto& ir = emitter.ir();
  Value* count = ir.CreateAnd(ir.CreateSub(end, begin), ir.getInt64(static_cast<uint64_t>(-step)));
  return ir.CreateAdd(begin, count);
}

Value* mask_below(Emitter& emitter, Value* first, Value* end) {
  auto& ir = emitter.ir();
  const int lanes = emitter.target().lanes();
  std::vector<llvm::Constant*> indices;
  for (int i = 0; i < lanes; ++i) indices.push_back(ir.getInt32(static_cast<uint32_t>(i)));
  Value* left = ir.CreateTrunc(ir.CreateSub(end, first), ir.getInt32Ty());
  return ir.CreateICmpSLT(llvm::ConstantVector::get(indices),
                          ir.CreateVectorSplat(static_cast<unsigned>(lanes), left));
}

}  // namespace

State for_lanes_carrying(Emitter& emitter, const LaneRange& range, int copies, State state,
                         const LaneBody& body) {
  const int lanes = emitter.target().lanes();
  const Dim extent = range.loop.extent();
  Value* begin = emitter.value_of(range.begin);
  Value* end = emitter.value_of(range.end);
  const auto run = [&](Value* from, Value* to, int count, bool masked) {
    state = emitter.loop_carrying(
        from, to, int64_t{count} * lanes, state, [&](Value* first, const State& carried) {
          emitter.bind(range.loop.index, first);
          Value* mask = masked ? mask_below(emitter, first, end) : nullptr;
          return body({range.loop.index, lanes, mask}, count, carried);
        });
  };
  Value* done = begin;
  if (copies > 1) {
    Value* groups = rounded_down(emitter, begin, end, int64_t{copies} * lanes);
    run(done, groups, copies, false);
    done = groups;
    if (ir::provably_divisible(extent, int64_t{copies} * lanes)) return state;
  }
  Value* vectors = rounded_down(emitter, begin, end, lanes);
  run(done, vectors, 1, false);
  if (!ir::provably_divisible(extent, lanes)) run(vectors, end, 1, true);
  return state;
}

void for_lanes(Emitter& emitter, const LaneRange& range, int copies,
               const std::function<void(const Lanes&, int)>& body) {
  for_lanes_carrying(emitter, range, copies, {}, [&](const Lanes& lanes, int count, const State&) {
    body(lanes, count);
    return State();
  });
}

namespace {

State nested_from(Emitter& emitter, const std::vector<plan::Loop>& loops, size_t depth,
                  const State& state, const std::function<State(const State&)>& body) {
  if (depth == loops.size()) return body(state);
  Value* zero = emitter.ir().getInt64(0);
  Value* extent = emitter.value_of(loops[depth].extent());
  return emitter.loop_carrying(zero, extent, 1, state, [&](Value* index, const State& carried) {
    emitter.bind(loops[depth].index, index);
    return nested_from(emitter, loops, depth + 1, carried, body);
  });
}

}  // namespace

State nested_loops(Emitter& emitter, const std::vector<plan::Loop>& loops, const State& state,
                   const std::function<State(const State&)>& body) {
  return nested_from(emitter, loops, 0, state, body);
}

Dim for_each_block(Emitter& emitter, std::vector<plan::Loop> rows, const plan::Loop& lane,
                   int64_t work, const std::function<void(const LaneRange&)>& body) {
  const int64_t block = block_size(work);
  const Dim blocks = ir::ceildiv(lane.extent(), block);
  const int64_t points = std::min(block, std::max<int64_t>(lane.extent().at_opt(), 1));
  emitter.interface().min_tasks_per_thread =
      tasks_per_thread(kOperationsPerThread, ir::saturating_product({work, points}));
  if (blocks.is_constant(1)) {
    for_each_task(emitter, rows, [&] { body({lane, 0, lane.extent()}); });
    return lane.extent();
  }
  const plan::Loop blocked{ir::make_loop_symbol("block", blocks)};
  rows.push_back(blocked);
  for_each_task(emitter, rows, [&] {
    const Dim first = Dim(blocked.index) * block;
    body({lane, first, ir::min(lane.extent(), first + block)});
  });
  return block;
}

State repeated(const State& state, size_t copies) {
  State result;
  for (size_t c = 0; c < copies; ++c) append(result, state);
  return result;
}

State copy_of(const State& state, size_t copy, size_t copies) {
  const size_t size = state.size() / copies;
  const auto begin = state.begin() + static_cast<std::ptrdiff_t>(copy * size);
  return {begin, begin + static_cast<std::ptrdiff_t>(size)};
}

void append(State& state, const State& more) {
  state.insert(state.end(), more.begin(), more.end());
}

}  // namespace kiln::cpu
