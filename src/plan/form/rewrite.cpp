#include "plan/form/rewrite.h"

#include <algorithm>

namespace kiln::plan {
namespace {

using ir::Op;

Expr atom_to_expr(const ir::AtomPtr& atom, const ValueMap& map) {
  if (atom->kind == ir::AtomKind::Symbol) {
    if (Expr value = map(atom->symbol)) return value;
    return position(ir::Dim(atom->symbol));
  }
  const Expr a = to_expr(atom->a, map), b = to_expr(atom->b, map);
  switch (atom->kind) {
    case ir::AtomKind::FloorDiv:
      return apply(Op::floor_div, {a, b});
    case ir::AtomKind::Mod:
      return apply(Op::remainder, {a, b});
    case ir::AtomKind::Min:
      return apply(Op::minimum, {a, b});
    default:
      return apply(Op::maximum, {a, b});
  }
}

}  // namespace

Expr to_expr(const ir::Dim& dim, const ValueMap& map) {
  const auto symbols = dim.symbols();
  const bool changes = std::ranges::any_of(
      symbols, [&](const ir::SymbolPtr& symbol) { return map(symbol) != nullptr; });
  if (!changes) return position(dim);
  Expr sum = position(0);
  for (const ir::Term& term : dim.terms()) {
    Expr product = position(term.coefficient);
    for (const ir::AtomPtr& atom : term.factors) {
      product = apply(Op::mul, {product, atom_to_expr(atom, map)});
    }
    sum = apply(Op::add, {sum, product});
  }
  return sum;
}

Expr substitute_values(const Expr& expr, const ValueMap& map) {
  return rewrite(expr, [&](const ExprNode& node) -> Expr {
    return node.kind == ExprKind::Position ? to_expr(node.index, map) : nullptr;
  });
}

}  // namespace kiln::plan
