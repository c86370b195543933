// A mask that keeps j <= i is the causal flag of attention, which lets backends skip what is masked
// out.
//
// Before: masks are computed in place (inline_pointwise). After: keep = (j <= i) & rest is causal
// with keep = rest.
#include "plan/form/fold.h"
#include "plan/passes/fusion.h"
#include "plan/passes/pass.h"

namespace kiln::plan {
namespace {

using ir::Op;

// Whether the comparison says exactly that j <= i.
bool is_causal(const Expr& expr, const Attention& attention) {
  if (expr->kind != ExprKind::Apply || expr->args.size() != 2) return false;
  const auto a = as_index(expr->args[0]), b = as_index(expr->args[1]);
  if (!a || !b) return false;
  const Index distance = Index(attention.i.index) - Index(attention.j.index);
  switch (expr->op) {
    case Op::le:
      return *b - *a == distance;
    case Op::lt:
      return *b - *a - 1 == distance;
    case Op::ge:
      return *a - *b == distance;
    case Op::gt:
      return *a - *b - 1 == distance;
    default:
      return false;
  }
}

// What is left of a conjunction without its causal parts; null if nothing is.
Expr without_causal(const Expr& keep, const Attention& attention, bool& found) {
  if (is_causal(keep, attention)) {
    found = true;
    return nullptr;
  }
  const bool is_and = keep->kind == ExprKind::Apply &&
                      (keep->op == Op::bitwise_and || keep->op == Op::mul) &&
                      keep->args[0]->dtype == DType::Bool;
  if (!is_and) return keep;
  const Expr a = without_causal(keep->args[0], attention, found);
  const Expr b = without_causal(keep->args[1], attention, found);
  return found ? logical_and(a, b) : keep;
}

}  // namespace

bool recognise_causal(Program& program) {
  bool changed = false;
  for (Kernel& kernel : program.kernels) {
    auto* attention = std::get_if<Attention>(&kernel.body);
    if (!attention || !attention->keep) continue;
    bool found = false;
    Expr rest = without_causal(attention->keep, *attention, found);
    if (!found) continue;
    attention->causal = true;
    attention->keep = std::move(rest);
    changed = true;
  }
  return changed;
}

}  // namespace kiln::plan
