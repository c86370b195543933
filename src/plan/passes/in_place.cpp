#include "plan/passes/in_place.h"

#include <algorithm>

#include "plan/form/access.h"
#include "plan/form/kernels.h"
#include "plan/passes/contraction_result.h"

namespace kiln::plan {
namespace {

Index load_offset(const Program& program, const ExprNode& node, const Indices& at) {
  return linearize(program.buffers[node.buffer].type.shape, at);
}

// Whether every load of `buffer` is at `offset`.
bool loads_only_at(const Program& program, const Expr& expr, BufferId buffer, const Index& offset) {
  bool result = true;
  visit(expr, [&](const ExprNode& node) {
    if (node.kind != ExprKind::Load || node.buffer != buffer) return;
    const auto at = load_indices(node);
    result = result && at && load_offset(program, node, *at) == offset;
  });
  return result;
}

// The offset that `store` writes, in terms of the loops of another stage of the same shape.
std::optional<Index> offset_in_stage(const Program& program, const Store& store,
                                     const std::vector<Loop>& loops) {
  if (loops.size() != store.loops.size()) return std::nullopt;
  Indices values;
  for (size_t i = 0; i < loops.size(); ++i) {
    if (!(loops[i].extent() == store.loops[i].extent())) return std::nullopt;
    values.push_back(Index(loops[i].index));
  }
  const Index offset = linearize(program.buffers[store.buffer].type.shape, store.indices);
  return offset.substitute(replace_loops(store.loops, values));
}

const Store* only_store(const LoopNest& nest, BufferId buffer) {
  const Store* result = nullptr;
  for (const Stage& stage : nest.stages) {
    const auto* store = std::get_if<Store>(&stage);
    if (!store || store->buffer != buffer) continue;
    if (result) return nullptr;
    result = store;
  }
  return result;
}

bool touches(const Stage& stage, BufferId buffer) {
  const auto read = loads(value_of(stage));
  const auto* store = std::get_if<Store>(&stage);
  return std::ranges::find(read, buffer) != read.end() || (store && store->buffer == buffer);
}

// Whether a stage touches `from` only where `target` writes at the same point of the outer loops.
bool keeps_to(const Program& program, const Stage& stage, BufferId from, const Store& target) {
  const auto offset = offset_in_stage(program, target, loops_of(stage));
  if (!offset || !loads_only_at(program, value_of(stage), from, *offset)) return false;
  const auto* store = std::get_if<Store>(&stage);
  return !store || store->buffer != from ||
         linearize(program.buffers[from].type.shape, store->indices) == *offset;
}

bool nest_works_in_place(const Program& program, const LoopNest& nest, BufferId from, BufferId to) {
  const Store* target = only_store(nest, to);
  if (!target) return false;
  bool overwritten = false;
  for (const Stage& stage : nest.stages) {
    if (touches(stage, from) && (overwritten || !keeps_to(program, stage, from, *target)))
      return false;
    overwritten |= std::get_if<Store>(&stage) == target;
  }
  return true;
}

}  // namespace

bool works_in_place(const Program& program, const Kernel& kernel, BufferId from, BufferId to) {
  const auto operand = operands(kernel);
  if (std::ranges::find(operand, from) != operand.end()) return false;
  if (const auto* nest = std::get_if<LoopNest>(&kernel.body)) {
    return nest_works_in_place(program, *nest, from, to);
  }
  const bool has_epilogue = std::holds_alternative<MatMul>(kernel.body) ||
                            std::holds_alternative<Convolution>(kernel.body);
  if (!has_epilogue || program.traits.results_apart) return false;
  const auto* convolution = std::get_if<Convolution>(&kernel.body);
  if (convolution && convolution->pool) return false;
  const ContractionResult result = *contraction_result(kernel);
  bool ok = true;
  for_each_expr(kernel, [&](const Expr& expr) {
    ok = ok && loads_only_at(program, expr, from, result.offset);
  });
  return ok;
}

}  // namespace kiln::plan
