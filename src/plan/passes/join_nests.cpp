// Neighbouring pointwise nests that do not depend on each other run side by side, as one kernel: the rotations of
// queries and of keys.
//
// Before: two kernels, one behind the other, of Stores that none of their loads sees, with loads and stores that
// are contiguous along the last loops; the smaller is worth no launch of its own. After: one nest without outer
// loops, whose Stores have all loops.
#include <algorithm>

#include "plan/form/kernels.h"
#include "plan/passes/fusion.h"
#include "plan/passes/pass.h"

namespace kiln::plan {
namespace {

// More stores are a long text with a branch for each.
constexpr size_t kMostStores = 8;

bool has_steps_of_one(const Index& offset, const Loop& loop) {
  if (!offset.mentions(loop.index)) return true;
  const auto linear = offset.as_linear_in(loop.index);
  return linear && linear->first.is_constant(1);
}

// Whether what a store loads and stores lies contiguously along its last loop, as far as it depends on it.
bool is_contiguous(const Program& program, const Store& store, const std::vector<Loop>& loops) {
  if (loops.empty()) return false;
  const auto offset = [&](BufferId buffer, const Indices& at) {
    return linearize(program.buffers[buffer].type.shape, at);
  };
  const Index own = offset(store.buffer, store.indices);
  bool result = own.mentions(loops.back().index) && has_steps_of_one(own, loops.back());
  visit(store.value, [&](const ExprNode& node) {
    if (node.kind != ExprKind::Load) return;
    const auto at = load_indices(node);
    result = result && at && has_steps_of_one(offset(node.buffer, *at), loops.back());
  });
  return result;
}

bool has_plain_extents(const std::vector<Loop>& loops) {
  return std::ranges::all_of(loops, [](const Loop& loop) {
    return std::ranges::none_of(loop.extent().symbols(),
                                [](const ir::SymbolPtr& symbol) { return symbol->is_loop; });
  });
}

bool is_candidate(const Program& program, const Kernel& kernel) {
  const auto* nest = std::get_if<LoopNest>(&kernel.body);
  if (!nest || share_memory(program, reads(kernel), writes(kernel))) return false;
  return std::ranges::all_of(nest->stages, [&](const Stage& stage) {
    const auto* store = std::get_if<Store>(&stage);
    if (!store || store->scan || has_checks(store->value)) return false;
    const std::vector<Loop> loops = with_loops(nest->outer, store->loops);
    return has_plain_extents(loops) && is_contiguous(program, *store, loops);
  });
}

int64_t points_of(const Kernel& kernel) {
  const auto& nest = std::get<LoopNest>(kernel.body);
  int64_t points = 0;
  for (const Stage& stage : nest.stages)
    points += points_at_opt(with_loops(nest.outer, loops_of(stage)));
  return points;
}

// The stores of a nest, with loops of their own for the outer ones.
void add_stores(const LoopNest& nest, std::vector<Stage>& stages) {
  for (const Stage& stage : nest.stages) {
    const auto& store = std::get<Store>(stage);
    std::vector<Loop> loops;
    Indices values;
    for (const Loop& loop : nest.outer) {
      loops.push_back(make_loop("j", loop.extent()));
      values.emplace_back(loops.back().index);
    }
    const IndexMap map = replace_loops(nest.outer, values);
    stages.emplace_back(Store{store.buffer,
                              with_loops(loops, store.loops),
                              substitute(store.indices, map),
                              substitute(store.value, map),
                              {}});
  }
}

bool join(Program& program, Kernel& first, Kernel& second) {
  if (first.repeat != second.repeat || !is_candidate(program, first) ||
      !is_candidate(program, second))
    return false;
  if (std::min(points_of(first), points_of(second)) > program.traits.joined_points) return false;
  const auto share = [&](const std::vector<BufferId>& some, const std::vector<BufferId>& others) {
    return share_memory(program, some, others);
  };
  if (share(writes(first), writes(second)) || share(writes(first), reads(second)) ||
      share(reads(first), writes(second)))
    return false;
  LoopNest joined;
  for (const Kernel* kernel : {&first, &second})
    add_stores(std::get<LoopNest>(kernel->body), joined.stages);
  if (joined.stages.size() > kMostStores) return false;
  second.body = std::move(joined);
  absorb_name(second, first);
  make_empty(first);
  return true;
}

}  // namespace

bool join_nests(Program& program) {
  if (program.traits.joined_points == 0) return false;
  bool changed = false;
  for (size_t i = 0; i + 1 < program.kernels.size(); ++i)
    changed |= join(program, program.kernels[i], program.kernels[i + 1]);
  if (changed) remove_empty(program);
  return changed;
}

}  // namespace kiln::plan
