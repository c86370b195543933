// Orthogonal polynomials of any degree, an operand like x: by their recurrences, where PyTorch's Chebyshev polynomials are not cosines.
#include <limits>

#include "import/ops/common.h"
#include "import/repeat.h"

namespace kiln::import {
namespace {

enum class Kind {
  ChebyshevT,
  ChebyshevU,
  ChebyshevV,
  ChebyshevW,
  HermiteH,
  HermiteHe,
  Laguerre,
  Legendre
};

constexpr bool is_chebyshev(Kind kind) { return kind <= Kind::ChebyshevW; }

Expr is_even(const Expr& n) {
  const Expr half = n * 0.5;
  return half.apply(Op::floor).apply(Op::eq, half);
}

// Of degree 1.
Expr first(Kind kind, const Expr& x) {
  switch (kind) {
    case Kind::ChebyshevU:
    case Kind::HermiteH:
      return x + x;
    case Kind::ChebyshevV:
      return x + x - 1;
    case Kind::ChebyshevW:
      return x + x + 1;
    case Kind::Laguerre:
      return 1 - x;
    default:
      return x;
  }
}

// Of degree k + 1, of those of degree k and k - 1.
Expr next(Kind kind, const Expr& x, const Expr& k, const Expr& here, const Expr& before) {
  switch (kind) {
    case Kind::HermiteH:
      return (x + x) * here - (k + k) * before;
    case Kind::HermiteHe:
      return x * here - k * before;
    case Kind::Laguerre:
      return ((k + k + (1 - x)) * here - k * before) / (k + 1);
    case Kind::Legendre:
      return ((k + k + 1) * x * here - k * before) / (k + 1);
    default:
      return (x + x) * here - before;
  }
}

struct Known {
  Expr is_known, value;
};

// At 1 and -1, and at 0 for Laguerre's, where the recurrence would lose digits.
Known at_ends(Kind kind, const Expr& x, const Expr& n) {
  const Expr is_end = x.apply(Op::abs).apply(Op::eq, 1), is_right = x.apply(Op::gt, 0);
  const Expr one = x.constant(1), even = is_even(n), twice = n + n + 1;
  const auto with_sign = [&](const Expr& size) { return (is_right + even).select(size, -size); };
  switch (kind) {
    case Kind::ChebyshevT:
    case Kind::Legendre:
      return {is_end, with_sign(one)};
    case Kind::ChebyshevU:
      return {is_end, with_sign(n + 1)};
    case Kind::ChebyshevV:
      return {is_end, is_right.select(one, with_sign(twice))};
    case Kind::ChebyshevW:
      return {is_end, is_right.select(twice, with_sign(one))};
    case Kind::Laguerre:
      return {x.apply(Op::eq, 0), one};
    default:
      return {is_end.apply(Op::ne, is_end), one};
  }
}

// Chebyshev polynomials between -1 and 1 of degrees above `least`, in f64.
Expr of_angle(Kind kind, const Expr& x, const Expr& n) {
  const Expr angle = x.apply(Op::acos), half = angle * 0.5, between = n + 0.5;
  switch (kind) {
    case Kind::ChebyshevT:
      return (n * angle).apply(Op::cos);
    case Kind::ChebyshevU:
      return ((n + 1) * angle).apply(Op::sin) / angle.apply(Op::sin);
    case Kind::ChebyshevV:
      return (between * angle).apply(Op::cos) / half.apply(Op::cos);
    default:
      return (between * angle).apply(Op::sin) / half.apply(Op::sin);
  }
}

// Above which PyTorch takes cosines.
double last_by_recurrence(Kind kind, bool is_shifted) {
  const bool is_third = kind == Kind::ChebyshevV || kind == Kind::ChebyshevW;
  if (is_shifted) return is_third ? 4 : 6;
  return kind == Kind::ChebyshevT ? 6 : 8;
}

// In f64, as differences of large numbers leave few digits. What is no number of the result's dtype is an infinity, of which the next
// steps make NaN, as they do in PyTorch.
Expr by_recurrence(Call& call, Kind kind, const Expr& x, const Expr& n, DType dtype) {
  const auto any_left = [](Call& at, const Expr& left) {
    return reduce(at, Op::reduce_max, left,
                  range(0, static_cast<int64_t>(left.value()->type.rank())), false);
  };
  const auto is_left = [](const Expr& k, const Expr& degree, const Expr& value) {
    return k.apply(Op::lt, degree) * value.apply(Op::eq, value);
  };
  Repeat repeat(call.builder());
  const Expr start = first(kind, x);
  const Expr one(call, call.builder().scalar(DType::F64, 1));
  const std::vector<Value*> carried =
      repeat.carry({one.value(), call.builder().expand(one, x.value()->type.shape), start.value()});
  const std::vector<Value*> used = repeat.use({x.value(), n.value()});
  Call inner(call, repeat.builder());
  const Expr k(inner, carried[0]), before(inner, carried[1]), here(inner, carried[2]);
  const Expr at(inner, used[0]), degree(inner, used[1]);
  Expr after = next(kind, at, k, here, before);
  if (dtype != DType::F64)
    after = after.apply(Op::abs)
                .apply(Op::gt, std::numeric_limits<float>::max())
                .select(after * std::numeric_limits<double>::infinity(), after);
  const Expr left = is_left(k, degree, here);
  after = left.select(after, here);
  Value* again = any_left(inner, is_left(k + 1, degree, after));
  Value* begins = any_left(call, is_left(one, n, start));
  return {call, repeat.finish(begins, again, {k + 1, left.select(here, before), after})[2]};
}

template <Kind kind, bool is_shifted>
Value* import_polynomial(Call& call) {
  const Operand given[] = {call.operand("x"), call.operand("n")};
  const DType dtype = floating_result_type(given);
  ir::Builder& builder = call.builder();
  Value *x = as_value(builder, given[0], dtype), *n = as_value(builder, given[1], dtype);
  const ir::Shape shape = ir::broadcast_shapes(x->type.shape, n->type.shape);
  const auto wide = [&](Value* value) {
    return Expr(call, builder.expand(builder.cast(value, DType::F64), shape));
  };
  Expr at = wide(x);
  if (is_shifted) at = at + at - 1;
  const Expr whole = wide(n).apply(Op::trunc);
  // What is no 64-bit integer counts as a negative degree.
  const Expr counts = whole.apply(Op::ge, 0) * whole.apply(Op::lt, 0x1p63);
  const Expr degree = counts.select(whole, whole.constant(0));
  const Known ends = at_ends(kind, at, degree);
  Expr is_known = ends.is_known, known = ends.value;
  if (is_chebyshev(kind)) {
    const Expr is_inside = at.apply(Op::abs).apply(Op::lt, 1) *
                           degree.apply(Op::gt, last_by_recurrence(kind, is_shifted));
    known = is_inside.select(of_angle(kind, at, degree), known);
    is_known = is_known + is_inside;
  }
  const Expr steps = is_known.select(degree.constant(0), degree);
  Expr value = is_known.select(known, by_recurrence(call, kind, at, steps, dtype));
  if (kind == Kind::HermiteH || kind == Kind::HermiteHe)  // PyTorch's limits
    value = degree.apply(Op::gt, dtype == DType::F64 ? 512 : 128)
                .select(value.constant(std::numeric_limits<double>::quiet_NaN()), value);
  value = degree.apply(Op::eq, 0).select(value.constant(1), value);
  return builder.cast(counts.select(value, value.constant(0)), dtype);
}

constexpr Row kRows[] = {
    {"aten.special_chebyshev_polynomial_t.default", import_polynomial<Kind::ChebyshevT, false>},
    {"aten.special_chebyshev_polynomial_t.x_scalar", import_polynomial<Kind::ChebyshevT, false>},
    {"aten.special_chebyshev_polynomial_t.n_scalar", import_polynomial<Kind::ChebyshevT, false>},
    {"aten.special_chebyshev_polynomial_u.default", import_polynomial<Kind::ChebyshevU, false>},
    {"aten.special_chebyshev_polynomial_u.x_scalar", import_polynomial<Kind::ChebyshevU, false>},
    {"aten.special_chebyshev_polynomial_u.n_scalar", import_polynomial<Kind::ChebyshevU, false>},
    {"aten.special_chebyshev_polynomial_v.default", import_polynomial<Kind::ChebyshevV, false>},
    {"aten.special_chebyshev_polynomial_v.x_scalar", import_polynomial<Kind::ChebyshevV, false>},
    {"aten.special_chebyshev_polynomial_v.n_scalar", import_polynomial<Kind::ChebyshevV, false>},
    {"aten.special_chebyshev_polynomial_w.default", import_polynomial<Kind::ChebyshevW, false>},
    {"aten.special_chebyshev_polynomial_w.x_scalar", import_polynomial<Kind::ChebyshevW, false>},
    {"aten.special_chebyshev_polynomial_w.n_scalar", import_polynomial<Kind::ChebyshevW, false>},
    {"aten.special_shifted_chebyshev_polynomial_t.default",
     import_polynomial<Kind::ChebyshevT, true>},
    {"aten.special_shifted_chebyshev_polynomial_t.x_scalar",
     import_polynomial<Kind::ChebyshevT, true>},
    {"aten.special_shifted_chebyshev_polynomial_t.n_scalar",
     import_polynomial<Kind::ChebyshevT, true>},
    {"aten.special_shifted_chebyshev_polynomial_u.default",
     import_polynomial<Kind::ChebyshevU, true>},
    {"aten.special_shifted_chebyshev_polynomial_u.x_scalar",
     import_polynomial<Kind::ChebyshevU, true>},
    {"aten.special_shifted_chebyshev_polynomial_u.n_scalar",
     import_polynomial<Kind::ChebyshevU, true>},
    {"aten.special_shifted_chebyshev_polynomial_v.default",
     import_polynomial<Kind::ChebyshevV, true>},
    {"aten.special_shifted_chebyshev_polynomial_v.x_scalar",
     import_polynomial<Kind::ChebyshevV, true>},
    {"aten.special_shifted_chebyshev_polynomial_v.n_scalar",
     import_polynomial<Kind::ChebyshevV, true>},
    {"aten.special_shifted_chebyshev_polynomial_w.default",
     import_polynomial<Kind::ChebyshevW, true>},
    {"aten.special_shifted_chebyshev_polynomial_w.x_scalar",
     import_polynomial<Kind::ChebyshevW, true>},
    {"aten.special_shifted_chebyshev_polynomial_w.n_scalar",
     import_polynomial<Kind::ChebyshevW, true>},
    {"aten.special_hermite_polynomial_h.default", import_polynomial<Kind::HermiteH, false>},
    {"aten.special_hermite_polynomial_h.x_scalar", import_polynomial<Kind::HermiteH, false>},
    {"aten.special_hermite_polynomial_h.n_scalar", import_polynomial<Kind::HermiteH, false>},
    {"aten.special_hermite_polynomial_he.default", import_polynomial<Kind::HermiteHe, false>},
    {"aten.special_hermite_polynomial_he.x_scalar", import_polynomial<Kind::HermiteHe, false>},
    {"aten.special_hermite_polynomial_he.n_scalar", import_polynomial<Kind::HermiteHe, false>},
    {"aten.special_laguerre_polynomial_l.default", import_polynomial<Kind::Laguerre, false>},
    {"aten.special_laguerre_polynomial_l.x_scalar", import_polynomial<Kind::Laguerre, false>},
    {"aten.special_laguerre_polynomial_l.n_scalar", import_polynomial<Kind::Laguerre, false>},
    {"aten.special_legendre_polynomial_p.default", import_polynomial<Kind::Legendre, false>},
    {"aten.special_legendre_polynomial_p.x_scalar", import_polynomial<Kind::Legendre, false>},
    {"aten.special_legendre_polynomial_p.n_scalar", import_polynomial<Kind::Legendre, false>},
};

}  // namespace

Rows orthogonal_rows() { return kRows; }

}  // namespace kiln::import
