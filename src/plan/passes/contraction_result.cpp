#include "plan/passes/contraction_result.h"

#include <algorithm>

namespace kiln::plan {
namespace {

ContractionResult viewed(const View& out, std::vector<Loop> loops) {
  Index offset = out.offset;
  for (size_t i = 0; i < loops.size(); ++i) offset += out.strides[i] * Index(loops[i].index);
  return {out.buffer, std::move(loops), std::move(offset)};
}

// Whether neighbouring columns are evenly spaced in everything that is loaded.
bool loads_evenly(const Program& program, const Expr& expr, const Loop& column) {
  bool result = true;
  visit(expr, [&](const ExprNode& node) {
    if (node.kind != ExprKind::Load) return;
    const auto indices = load_indices(node);
    result &= indices && linearize(program.buffers[node.buffer].type.shape, *indices)
                             .as_linear_in(column.index)
                             .has_value();
  });
  return result;
}

}  // namespace

std::optional<ContractionResult> contraction_result(const Kernel& kernel) {
  if (const auto* matmul = std::get_if<MatMul>(&kernel.body)) {
    return viewed(matmul->out, with_loops(matmul->batch, {matmul->m, matmul->n}));
  }
  if (const auto* attention = std::get_if<Attention>(&kernel.body)) {
    const Loop e = make_loop("e", attention->value_dim);
    return viewed(attention->out, with_loops(attention->batch, {attention->i, e}));
  }
  if (const auto* c = std::get_if<Convolution>(&kernel.body)) {
    const Loop &y = c->pool ? c->pool->y : c->y, &x = c->pool ? c->pool->x : c->x;
    const ir::Shape shape = {c->b.extent(), y.extent(), x.extent(), c->o.extent()};
    const Indices at = {c->b.index, y.index, x.index, c->o.index};
    return ContractionResult{c->out, {c->b, y, x, c->o}, linearize(shape, at)};
  }
  if (const auto* sort = std::get_if<Sort>(&kernel.body))
    return viewed(sort->out, with_loops(sort->outer, {sort->place}));
  if (const auto* s = std::get_if<Scatter>(&kernel.body))
    return viewed(s->out, with_loops(with_loops(s->outer, {s->position}), s->inner));
  return std::nullopt;
}

Expr* epilogue_of(Kernel& kernel) {
  if (auto* matmul = std::get_if<MatMul>(&kernel.body)) return &matmul->epilogue;
  if (auto* convolution = std::get_if<Convolution>(&kernel.body)) return &convolution->epilogue;
  return nullptr;
}

bool epilogue_takes(const Program& program, const Kernel& kernel, const Expr& expr) {
  const bool has_epilogue = std::holds_alternative<MatMul>(kernel.body) ||
                            std::holds_alternative<Convolution>(kernel.body);
  if (!has_epilogue || program.traits.epilogue == EpilogueRule::AnyLoads) return true;
  return program.traits.epilogue == EpilogueRule::EvenLoads &&
         loads_evenly(program, expr, contraction_result(kernel)->loops.back());
}

bool covers_buffer(const Program& program, const ContractionResult& result) {
  ir::Dim points = 1;
  for (const Loop& loop : result.loops) points *= loop.extent();
  return points == program.buffers[result.buffer].type.elements();
}

bool redirect(const Program& program, Kernel& kernel, const ContractionResult& result,
              BufferId buffer, const Indices& indices) {
  const Index offset = linearize(program.buffers[buffer].type.shape, indices);
  if (auto* c = std::get_if<Convolution>(&kernel.body)) {
    if (!(offset == result.offset)) return false;
    c->out = buffer;
    return true;
  }
  auto affine = as_affine(offset, result.loops);
  if (!affine) return false;
  const bool backwards = std::ranges::any_of(
      affine->strides, [](const ir::Dim& stride) { return stride.lower_bound() < 0; });
  if (backwards) return false;
  View out{buffer, std::move(affine->base), std::move(affine->strides)};
  if (auto* matmul = std::get_if<MatMul>(&kernel.body)) {
    matmul->out = std::move(out);
  } else if (auto* attention = std::get_if<Attention>(&kernel.body)) {
    attention->out = std::move(out);
  } else if (auto* sort = std::get_if<Sort>(&kernel.body)) {
    sort->out = std::move(out);
  } else if (auto* scatter = std::get_if<Scatter>(&kernel.body)) {
    scatter->out = std::move(out);
  }
  return true;
}

}  // namespace kiln::plan
