// Pointwise work on what a nest of reductions stores is done before it is stored, wherever it goes: the
// activation behind a group norm, and the copy to the layout of the next convolution.
//
// Before: a nest with one Store, whose buffer t is read by one pointwise kernel only, at a bijection of its
// positions (reshapes and permutes between them included). After: the nest computes and stores what the
// pointwise kernel did, at the pointwise kernel's place in the order, where all that it reads is there.
#include <algorithm>

#include "plan/form/kernels.h"
#include "plan/passes/fusion.h"
#include "plan/passes/pass.h"

namespace kiln::plan {
namespace {

// The only Store of a nest that has reductions too, if it writes every element of its buffer.
Store* only_store(Program& program, size_t index) {
  auto* nest = std::get_if<LoopNest>(&program.kernels[index].body);
  if (!nest) return nullptr;
  Store* result = nullptr;
  for (Stage& stage : nest->stages) {
    auto* store = std::get_if<Store>(&stage);
    if (store && result) return nullptr;
    if (store) result = store;
  }
  if (!result || result->scan || result->loops.empty() || nest->stages.size() == 1) return nullptr;
  ir::Dim points = 1;
  for (const Loop& loop : with_loops(nest->outer, result->loops)) points *= loop.extent();
  return points == program.buffers[result->buffer].type.elements() ? result : nullptr;
}

// Whether the nest has tasks enough for work that had one for each point before.
bool is_parallel(const Program& program, const LoopNest& nest, const Store& store) {
  const TargetTraits& traits = program.traits;
  const auto is_long = [&](const Stage& stage) {
    return traits.long_reduction != 0 && points_at_opt(loops_of(stage)) >= traits.long_reduction;
  };
  return points_at_opt(nest.outer) >= traits.min_parallel_points ||
         points_at_opt(store.loops) <= traits.large_task_points ||
         std::ranges::any_of(nest.stages, is_long);  // split_reductions makes more of them
}

bool fuse(Program& program, size_t producer, size_t consumer) {
  Store& store = *only_store(program, producer);
  const auto& nest = std::get<LoopNest>(program.kernels[producer].body);
  auto pointwise = as_pointwise(program.kernels[consumer]);
  if (!pointwise || !is_parallel(program, nest, store)) return false;
  *pointwise = refined(std::move(*pointwise), store.buffer);
  const ir::Type& type = program.buffers[store.buffer].type;
  const auto at = only_load(pointwise->value, store.buffer);
  if (!at) return false;
  const auto map = Bijection::find(linearize(type.shape, *at), pointwise->loops, type.elements());
  if (!map) return false;
  const IndexMap loops =
      replace_loops(pointwise->loops, map->loops_at(linearize(type.shape, store.indices)));
  const Expr value =
      rewrite(substitute(pointwise->value, loops), [&](const ExprNode& node) -> Expr {
        return node.kind == ExprKind::Load && node.buffer == store.buffer ? store.value : nullptr;
      });
  if (has_checks(value) || !is_small_enough(program.traits, value) ||
      !loads_in_bounds(program, value))
    return false;
  store.buffer = pointwise->buffer;
  store.indices = substitute(pointwise->indices, loops);
  store.value = value;
  Kernel& kernel = program.kernels[consumer];
  kernel.body = std::move(program.kernels[producer].body);
  make_empty(program.kernels[producer]);
  absorb_name(kernel, program.kernels[producer]);
  return true;
}

}  // namespace

bool fuse_stores(Program& program) {
  // The loops of the store are those of the nest: where their order stays, they may jump through memory.
  if (!program.traits.loops_in_memory_order) return false;
  const auto result = [&](size_t i) {
    const Store* store = only_store(program, i);
    return store ? store->buffer : BufferId{-1};
  };
  return fuse_with_readers(program, result, [&](size_t producer, size_t reader) {
    return fuse(program, producer, reader);
  });
}

}  // namespace kiln::plan
