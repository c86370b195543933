// What is known at compile time: constants, comparisons of positions decided by ranges, identities
// of arithmetic.
#include "plan/form/fold.h"

#include <algorithm>
#include <cmath>

#include "ir/dim_ops.h"
#include "ir/size_overflow.h"

namespace kiln::plan {
namespace {

using ir::Op;

bool is_number(const Expr& expr, double value) {
  const auto scalar = as_scalar(expr);
  return scalar && scalar->as_double() == value;
}

bool is_truth(const Expr& expr, bool value) {
  const auto scalar = as_scalar(expr);
  return scalar && scalar->truth() == value;
}

Expr fold_constants(Op op, const std::vector<Expr>& args, bool gelu_tanh) {
  std::vector<Scalar> values;
  for (const Expr& arg : args) {
    const auto value = as_scalar(arg);
    if (!value) return nullptr;
    values.push_back(*value);
  }
  return constant(evaluate(op, values, gelu_tanh));
}

Expr boolean(bool value) { return constant_int(DType::Bool, value); }

bool non_negative(const Index& index) { return index.lower_bound() >= 0; }

Expr fold_positions(Op op, const std::vector<Expr>& args) {
  const auto a = as_index(args[0]);
  if (!a) return nullptr;
  if (args.size() == 1) {
    if (op == Op::neg && !a->is_constant()) return position(-*a);
    if ((op == Op::abs || op == Op::relu) && non_negative(*a)) return args[0];
    return nullptr;
  }
  const auto b = args.size() == 2 ? as_index(args[1]) : std::nullopt;
  if (!b) return nullptr;
  if (const auto decided = ir::decide(op, *a, *b)) return boolean(*decided);
  try {
    const auto combined = ir::combine(op, *a, *b);
    return combined ? position(*combined) : nullptr;
  } catch (const ir::SizeOverflow&) {
    return nullptr;  // wraps around when it runs, as PyTorch does
  }
}

// true & x -> x, false & x -> false, and their duals.
Expr fold_bool(Op op, const Expr& a, const Expr& b) {
  const bool is_and = op == Op::bitwise_and || op == Op::mul || op == Op::minimum;
  const bool is_or = op == Op::bitwise_or || op == Op::add || op == Op::maximum;
  if (!is_and && !is_or) return nullptr;
  if (a == b) return a;
  for (const auto& [x, other] : {std::pair(a, b), std::pair(b, a)}) {
    if (is_truth(x, true)) return is_and ? other : boolean(true);
    if (is_truth(x, false)) return is_and ? boolean(false) : other;
  }
  return nullptr;
}

Expr fold_pow(const Expr& x, const Expr& exponent) {
  if (!is_floating(x->dtype)) return nullptr;
  if (is_number(exponent, 1)) return x;
  if (is_number(exponent, 2)) return apply(Op::mul, {x, x});
  if (is_number(exponent, 3)) return apply(Op::mul, {apply(Op::mul, {x, x}), x});
  if (is_number(exponent, -1)) return apply(Op::reciprocal, {x});
  return nullptr;
}

// Whether x + c, or x - c, is x, -0 included.
bool is_neutral(Op op, const Expr& c) {
  if (!is_number(c, 0)) return false;
  return !is_floating(c->dtype) || std::signbit(c->number) == (op == Op::add);
}

Expr fold_identity(Op op, const Expr& a, const Expr& b) {
  switch (op) {
    case Op::add:
      if (is_neutral(op, a)) return b;
      return is_neutral(op, b) ? a : nullptr;
    case Op::sub:
      return is_neutral(op, b) ? a : nullptr;
    case Op::mul:
      if (is_number(a, 1)) return b;
      return is_number(b, 1) ? a : nullptr;
    case Op::div:
      return is_number(b, 1) ? a : nullptr;
    case Op::pow:
      return fold_pow(a, b);
    case Op::maximum:
    case Op::minimum:
      return a == b ? a : nullptr;
    default:
      return nullptr;
  }
}

Expr fold_where(const std::vector<Expr>& args) {
  if (is_truth(args[0], true)) return args[1];
  if (is_truth(args[0], false)) return args[2];
  return args[1] == args[2] ? args[1] : nullptr;
}

// ne(cast(b), 0) -> b and eq(cast(b), 0) -> !b, for a bool b.
Expr fold_bool_test(Op op, const Expr& a, const Expr& b) {
  if (op != Op::ne && op != Op::eq) return nullptr;
  if (a->kind != ExprKind::Apply || a->op != Op::cast || a->args[0]->dtype != DType::Bool) {
    return nullptr;
  }
  if (!is_number(b, 0)) return nullptr;
  return op == Op::ne ? a->args[0] : apply(Op::logical_not, {a->args[0]});
}

Expr fold_unary(Op op, const Expr& x) {
  if (op == Op::logical_not && x->kind == ExprKind::Apply && x->op == Op::logical_not &&
      x->args[0]->dtype == DType::Bool) {
    return x->args[0];
  }
  if (op == Op::relu && x->kind == ExprKind::Apply && x->op == Op::relu) return x;
  return nullptr;
}

}  // namespace

std::optional<Scalar> as_scalar(const Expr& expr) {
  if (expr->kind != ExprKind::Constant) return std::nullopt;
  return Scalar{expr->dtype, expr->number, expr->integer};
}

Expr constant(const Scalar& value) {
  return is_floating(value.dtype) ? constant(value.dtype, value.number)
                                  : constant_int(value.dtype, value.integer);
}

std::optional<Index> as_index(const Expr& expr) {
  if (expr->kind == ExprKind::Position) return expr->index;
  if (expr->kind == ExprKind::Constant && expr->dtype == DType::I64) return Index(expr->integer);
  return std::nullopt;
}

Expr fold_apply(Op op, const std::vector<Expr>& args, bool gelu_tanh) {
  if (Expr folded = fold_constants(op, args, gelu_tanh)) return folded;
  if (op == Op::where) return fold_where(args);
  if (Expr folded = fold_positions(op, args)) return folded;
  if (args.size() == 1) return fold_unary(op, args[0]);
  if (args[0]->dtype == DType::Bool) return fold_bool(op, args[0], args[1]);
  if (Expr folded = fold_bool_test(op, args[0], args[1])) return folded;
  return fold_identity(op, args[0], args[1]);
}

Expr fold_cast(const Expr& value, DType dtype) {
  if (value->dtype == dtype) return value;
  if (const auto scalar = as_scalar(value)) return constant(convert(*scalar, dtype));
  if (value->kind != ExprKind::Apply || value->op != Op::cast) return nullptr;
  const Expr& inner = value->args[0];
  const bool fits = inner->kind == ExprKind::Position && value->dtype == DType::I32 &&
                    inner->index.lower_bound() >= INT32_MIN &&
                    inner->index.upper_bound() <= INT32_MAX;
  const bool merge = fits || casts_merge(inner->dtype, value->dtype, dtype, is_rounded(inner));
  return merge ? cast(inner, dtype) : nullptr;
}

}  // namespace kiln::plan
