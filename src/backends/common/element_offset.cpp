#include "backends/common/element_offset.h"

#include <optional>

#include "backends/common/dim_terms.h"
#include "plan/form/access.h"
#include "support/error.h"

namespace kiln::backend {
namespace {

using ir::Dim;
using plan::Expr;
using plan::ExprKind;

bool is_apply(const Expr& expr, ir::Op op) {
  return expr->kind == ExprKind::Apply && expr->op == op;
}

// x and d, for an x * d whose d is known outside of all loops.
std::optional<std::pair<Expr, Dim>> constant_factor(const Expr& expr) {
  if (!is_apply(expr, ir::Op::mul)) return std::nullopt;
  for (size_t i : {size_t{1}, size_t{0}}) {
    const Expr& factor = expr->args[i];
    const Expr& rest = expr->args[1 - i];
    if (factor->kind == ExprKind::Constant) return std::pair(rest, Dim(factor->integer));
    if (factor->kind == ExprKind::Position && !depends_on_loops(factor->index))
      return std::pair(rest, factor->index);
  }
  return std::nullopt;
}

void add_to(ElementOffset& offset, const Expr& index, const Dim& stride) {
  if (index->kind == ExprKind::Constant) {
    offset.linear += stride * index->integer;
  } else if (index->kind == ExprKind::Position) {
    offset.linear += stride * index->index;
  } else if (is_apply(index, ir::Op::add)) {
    add_to(offset, index->args[0], stride);
    add_to(offset, index->args[1], stride);
  } else if (is_apply(index, ir::Op::sub)) {
    add_to(offset, index->args[0], stride);
    add_to(offset, index->args[1], -stride);
  } else if (const auto factors = constant_factor(index)) {
    add_to(offset, factors->first, stride * factors->second);
  } else {
    offset.dynamic.emplace_back(index, stride);
  }
}

}  // namespace

ElementOffset element_offset(const plan::Program& program, plan::BufferId buffer,
                             const std::vector<Expr>& indices) {
  ElementOffset offset;
  if (indices.size() == 1) {
    add_to(offset, indices[0], 1);
    return offset;
  }
  const auto& shape = program.buffers.at(static_cast<size_t>(buffer)).type.shape;
  const auto strides = plan::dense_strides(shape);
  KILN_CHECK(strides.size() == indices.size(), "an access has one index per axis of its buffer");
  for (size_t i = 0; i < indices.size(); ++i) add_to(offset, indices[i], strides[i]);
  return offset;
}

}  // namespace kiln::backend
