// The loops of a stage run in the order in which memory lies: the one along which elements are
// neighbours is the innermost.
//
// Before: a reduction or a store whose loops come in the order of the op's axes, whatever the layout of
// what it reads (a group norm of channels-last pixels goes through channels last). After: its loops
// sorted by their strides in the first buffer that the stage reads at positions, or in what it stores to. All
// stages of a nest that read the same buffer get the same order. Scans, which run in order, stay.
#include <algorithm>
#include <functional>

#include "plan/form/kernels.h"
#include "plan/passes/fusion.h"
#include "plan/passes/pass.h"

namespace kiln::plan {
namespace {

// How far apart neighbours along a loop are; 0 where that is not known.
int64_t stride_of(const Index& offset, const Loop& loop) {
  const auto linear = offset.as_linear_in(loop.index);
  return linear && linear->first.is_constant() ? std::abs(linear->first.constant()) : 0;
}

// The offset of the first load that depends on all loops, or of the store.
std::optional<Index> main_offset(const Program& program, const Stage& stage) {
  const std::vector<Loop>& loops = loops_of(stage);
  std::optional<Index> result;
  visit(value_of(stage), [&](const ExprNode& node) {
    if (result || node.kind != ExprKind::Load) return;
    const auto at = load_indices(node);
    if (!at) return;
    Index offset = linearize(program.buffers[node.buffer].type.shape, *at);
    const bool all =
        std::ranges::all_of(loops, [&](const Loop& loop) { return stride_of(offset, loop) != 0; });
    if (all) result = std::move(offset);
  });
  const auto* store = std::get_if<Store>(&stage);
  if (!result && store)
    result = linearize(program.buffers[store->buffer].type.shape, store->indices);
  return result;
}

bool sort_loops(std::vector<Loop>& loops, const Index& offset) {
  const auto stride = [&](const Loop& loop) { return stride_of(offset, loop); };
  const bool known = std::ranges::all_of(loops, [&](const Loop& loop) {
    // Extents that depend on other loops of the stage have their place.
    return stride(loop) != 0 && loop.extent().is_constant();
  });
  if (!known || std::ranges::is_sorted(loops, std::ranges::greater(), stride)) return false;
  std::ranges::stable_sort(loops, std::ranges::greater(), stride);
  return true;
}

bool order(const Program& program, Stage& stage) {
  std::vector<Loop>& loops = loops_of(stage);
  const auto* store = std::get_if<Store>(&stage);
  if (loops.size() < 2 || (store && store->scan)) return false;
  const auto offset = main_offset(program, stage);
  return offset && sort_loops(loops, *offset);
}

// The outer loops of pointwise work, where all that it reads at every point lies like its result.
bool order_points(const Program& program, LoopNest& nest) {
  auto* store = nest.stages.size() == 1 ? std::get_if<Store>(&nest.stages[0]) : nullptr;
  if (!store || store->scan || !store->loops.empty()) return false;
  const Index own = linearize(program.buffers[store->buffer].type.shape, store->indices);
  bool alike = true;
  visit(store->value, [&](const ExprNode& node) {
    const auto at = node.kind == ExprKind::Load ? load_indices(node) : std::nullopt;
    if (!at) return;
    const Index offset = linearize(program.buffers[node.buffer].type.shape, *at);
    const bool all = std::ranges::all_of(
        nest.outer, [&](const Loop& loop) { return stride_of(offset, loop) != 0; });
    alike &= !all || std::ranges::all_of(nest.outer, [&](const Loop& loop) {
      return stride_of(offset, loop) == stride_of(own, loop);
    });
  });
  return alike && sort_loops(nest.outer, own);
}

}  // namespace

bool order_loops(Program& program) {
  if (!program.traits.loops_in_memory_order) return false;
  bool changed = false;
  for (Kernel& kernel : program.kernels) {
    if (auto* nest = std::get_if<LoopNest>(&kernel.body)) {
      for (Stage& stage : nest->stages) changed |= order(program, stage);
      changed |= order_points(program, *nest);
    }
  }
  return changed;
}

}  // namespace kiln::plan
