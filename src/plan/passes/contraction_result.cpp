#include "plan/passes/contraction_result.h"

#include <algorithm>

namespace kiln::plan {
namespace {

ContractionResult viewed(const View& out, std::vector<Loop> loops) {
  Index offset = out.offset;
  for (size_t i = 0; i < loops.size(); ++i) offset += out.strides[i] * Index(loops[i].index);
  return {out.buffer, std::move(loops), std::move(offset)};
}

std::vector<Loop> with(std::vector<Loop> loops, const Loop& row, const Loop& column) {
  loops.push_back(row);
  loops.push_back(column);
  return loops;
}

}  // namespace

std::optional<ContractionResult> contraction_result(const Kernel& kernel) {
  if (const auto* matmul = std::get_if<MatMul>(&kernel.body)) {
    return viewed(matmul->out, with(matmul->batch, matmul->m, matmul->n));
  }
  if (const auto* attention = std::get_if<Attention>(&kernel.body)) {
    const Loop e{ir::make_loop_symbol("e", attention->value_dim)};
    return viewed(attention->out, with(attention->batch, attention->i, e));
  }
  if (const auto* c = std::get_if<Convolution>(&kernel.body)) {
    const ir::Shape shape = {c->b.extent(), c->y.extent(), c->x.extent(), c->o.extent()};
    const Indices at = {c->b.index, c->y.index, c->x.index, c->o.index};
    return ContractionResult{c->out, {c->b, c->y, c->x, c->o}, linearize(shape, at)};
  }
  return std::nullopt;
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
  }
  return true;
}

}  // namespace kiln::plan
