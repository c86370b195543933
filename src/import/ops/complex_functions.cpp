// Functions of complex numbers beyond arithmetic: roots, powers, sines and hyperbolic functions, by PyTorch's definitions of
// their parts; truth, norms and products with something added.
#include <cmath>
#include <numbers>

#include "import/ops/complex.h"

namespace kiln::import {
namespace {

using Results = std::vector<Complex>;
using Function = Pair (*)(const Pair& x);

Pair self(Call& call) { return Pair::of(call, "self", result_part(call)); }

template <Function function>
Results unary(Call& call) {
  return {function(self(call)).value(call)};
}

Pair times(const Pair& x, double factor) { return {x.re * factor, x.im * factor}; }
Pair exponential(const Pair& x) {
  const Expr size = x.re.apply(Op::exp);
  return {size * x.im.apply(Op::cos), size * x.im.apply(Op::sin)};
}
Pair logarithm(const Pair& x) {
  return {x.re.apply(Op::hypot, x.im).apply(Op::log), x.im.apply(Op::atan2, x.re)};
}
template <Op op>
Pair logarithm_to_base(const Pair& x) {
  return times(logarithm(x), op == Op::log2 ? 1 / std::numbers::ln2 : 1 / std::numbers::ln10);
}
Pair power_of_two(const Pair& x) { return exponential(times(x, std::numbers::ln2)); }

// The root whose real part is not negative: the larger part is a sum, the other one follows from the imaginary part.
Pair root(const Pair& x) {
  const Expr size = x.re.apply(Op::hypot, x.im) * 0.5 + x.re.apply(Op::abs) * 0.5;
  const Expr large = size.apply(Op::sqrt);
  const Expr quotient = x.im / (large * 2);
  const Expr small = large.apply(Op::eq, 0).select(x.im, quotient);
  const Expr is_right = x.re.apply(Op::ge, 0);
  const Expr is_below = x.im.apply(Op::lt, 0) + x.im.apply(Op::reciprocal).apply(Op::lt, 0);
  return {is_right.select(large, small.apply(Op::abs)),
          is_right.select(small, is_below.select(-large, large))};
}

Pair reciprocal_root(const Pair& x) {
  const Pair of = root(x);
  return divide({of.re.constant(1), of.re.constant(0)}, of);
}

Pair sine(const Pair& x) {
  return {x.re.apply(Op::sin) * x.im.apply(Op::cosh), x.re.apply(Op::cos) * x.im.apply(Op::sinh)};
}
Pair cosine(const Pair& x) {
  return {x.re.apply(Op::cos) * x.im.apply(Op::cosh),
          -(x.re.apply(Op::sin) * x.im.apply(Op::sinh))};
}
Pair hyperbolic_sine(const Pair& x) {
  return {x.re.apply(Op::sinh) * x.im.apply(Op::cos), x.re.apply(Op::cosh) * x.im.apply(Op::sin)};
}
Pair hyperbolic_cosine(const Pair& x) {
  return {x.re.apply(Op::cosh) * x.im.apply(Op::cos), x.re.apply(Op::sinh) * x.im.apply(Op::sin)};
}
// (t + i u) / (1 + i t u) of t = tanh of the real part and u = tan of the imaginary one; 1 - t^2 is the square of 1 / cosh.
Pair hyperbolic_tangent(const Pair& x) {
  const Expr t = x.re.apply(Op::tanh), u = x.im.apply(Op::tan);
  const Expr cosh = x.re.apply(Op::cosh).apply(Op::reciprocal);
  const Expr divisor = t * t * u * u + 1;
  return {t * (u * u + 1) / divisor, u * cosh * cosh / divisor};
}
Pair tangent(const Pair& x) {
  const Pair turned = hyperbolic_tangent({-x.im, x.re});  // tan(x) = -i tanh(i x)
  return {turned.im, -turned.re};
}
Pair sigmoid(const Pair& x) {
  const Pair power = exponential({-x.re, -x.im});
  return divide({power.re.constant(1), power.re.constant(0)}, {power.re + 1, power.im});
}
Pair silu(const Pair& x) { return x * sigmoid(x); }

// --- Inverse functions, in f64: of numbers near branch points little would be left in f32 (Kahan's formulas). ---

template <Function function>
Results unary_in_f64(Call& call) {
  const DType dtype = result_part(call);
  const Pair result = function(Pair::of(call, "self", DType::F64));
  const Complex whole = result.value(call);
  return {{call.builder().cast(whole.re, dtype), call.builder().cast(whole.im, dtype)}};
}

// The roots of 1 - x and 1 + x.
struct Roots {
  Pair below, above;
};
Roots roots_around(const Pair& x) { return {root({1 - x.re, -x.im}), root({x.re + 1, x.im})}; }

// The imaginary part of conj(a) b.
Expr cross(const Pair& a, const Pair& b) { return a.re * b.im - a.im * b.re; }
Expr dot(const Pair& a, const Pair& b) { return a.re * b.re + a.im * b.im; }

Pair inverse_sine(const Pair& x) {
  const Roots roots = roots_around(x);
  const Expr re =
      x.re.apply(Op::atan2, roots.below.re * roots.above.re - roots.below.im * roots.above.im);
  return {re, cross(roots.below, roots.above).apply(Op::asinh)};
}
Pair inverse_cosine(const Pair& x) {
  const Roots roots = roots_around(x);
  return {roots.below.re.apply(Op::atan2, roots.above.re) * 2,
          cross(roots.above, roots.below).apply(Op::asinh)};
}
Pair inverse_hyperbolic_sine(const Pair& x) {
  const Pair turned = inverse_sine({-x.im, x.re});  // asinh(x) = -i asin(i x)
  return {turned.im, -turned.re};
}
Pair inverse_hyperbolic_cosine(const Pair& x) {
  const Pair below = root({x.re - 1, x.im}), above = root({x.re + 1, x.im});
  return {dot(below, above).apply(Op::asinh), below.im.apply(Op::atan2, above.re) * 2};
}
Pair inverse_hyperbolic_tangent(const Pair& x) {
  // Odd in the real part; left of 0 the logarithm would be that of almost 0.
  const Expr is_left = x.re.apply(Op::lt, 0), size = is_left.select(-x.re, x.re);
  const Expr below = 1 - size, square = x.im * x.im;
  const Expr re = (size * 4 / (below * below + square)).apply(Op::log1p) * 0.25;
  return {is_left.select(-re, re), (x.im * 2).apply(Op::atan2, below * (size + 1) - square) * 0.5};
}
Pair inverse_tangent(const Pair& x) {
  const Pair turned = inverse_hyperbolic_tangent({-x.im, x.re});  // atan(x) = -i atanh(i x)
  return {turned.im, -turned.re};
}

// log(1 + x): near 0 by the square of its size, |1 + x|^2 - 1.
Pair logarithm_of_one_more(const Pair& x) {
  const Expr square = x.re * (x.re + 2) + x.im * x.im;
  const Expr near = square.apply(Op::log1p) * 0.5;
  const Expr far = (x.re + 1).apply(Op::hypot, x.im).apply(Op::log);
  return {square.apply(Op::abs).apply(Op::lt, 0.5).select(near, far),
          x.im.apply(Op::atan2, x.re + 1)};
}
Pair exponential_less_one(const Pair& x) {
  const Expr half = (x.im * 0.5).apply(Op::sin);
  return {x.re.apply(Op::expm1) * x.im.apply(Op::cos) - half * half * 2,
          x.re.apply(Op::exp) * x.im.apply(Op::sin)};
}

// e^(w log(x)), and 0 of 0, but NaN if w is 0, too. In f64: a large exponent makes digits of the result of those that the
// logarithm's rounding took.
Results import_pow(Call& call) {
  const DType dtype = result_part(call);
  const Pair x = Pair::of(call, "self", DType::F64), w = Pair::of(call, "exponent", DType::F64);
  const Pair power = exponential(w * logarithm(x));
  const Expr is_zero = x.re.apply(Op::eq, 0) * x.im.apply(Op::eq, 0) * w.re.apply(Op::gt, 0);
  const Complex result = Pair{is_zero.select(power.re.constant(0), power.re),
                              is_zero.select(power.im.constant(0), power.im)}
                             .value(call);
  return {{call.builder().cast(result.re, dtype), call.builder().cast(result.im, dtype)}};
}

Results import_where(Call& call) {
  const DType dtype = result_part(call);
  const Pair a = Pair::of(call, "self", dtype), b = Pair::of(call, "other", dtype);
  const Expr condition(call, call.builder().cast(call.tensor("condition"), DType::Bool));
  return {Pair{condition.select(a.re, b.re), condition.select(a.im, b.im)}.value(call)};
}

// --- Truth: a number is true if it is not 0. ---

Expr truth(Call& call, const char* name) {
  if (!call.is_complex(name)) return {call, call.builder().cast(call.tensor(name), DType::Bool)};
  const Complex x = call.complex(name);
  return Expr(call, x.re).apply(Op::ne, 0) + Expr(call, x.im).apply(Op::ne, 0);
}

template <Op op>
Results import_logical(Call& call) {
  return {{truth(call, "self").apply(op, truth(call, "other")), nullptr}};
}
Results import_logical_not(Call& call) {
  return {{truth(call, "self").apply(Op::logical_not), nullptr}};
}

template <Op op>
Results import_any_all(Call& call) {
  const Expr x = truth(call, "self");
  const std::vector<int64_t> axes = call.axes_or_all("dim", x.value()->type.rank());
  return {{reduce(call, op, x, axes, call.boolean_or("keepdim", false)), nullptr}};
}

Results import_count_nonzero(Call& call) {
  Value* ones = call.builder().cast(truth(call, "self"), DType::I64);
  const std::vector<int64_t> axes = call.axes_or_all("dim", ones->type.rank());
  return {{reduce(call, Op::reduce_sum, ones, axes, false), nullptr}};
}

// --- Norms, of absolute values ---

Results import_norm(Call& call) {
  const Complex x = call.complex("self");
  const DType dtype = result_part(call);
  const Expr size = Expr(call, call.builder().cast(x.re, dtype))
                        .apply(Op::hypot, {call, call.builder().cast(x.im, dtype)});
  const double order = call.real_or(call.has("p") ? "p" : "ord", 2);
  const std::vector<int64_t> axes = call.axes_or_all("dim", size.value()->type.rank());
  if (order < 0 || std::isinf(order))
    require_elements(call, size, axes, ir::Requirement::Kind::Sizes);
  return {{vector_norm(call, size, order, axes, call.boolean_or("keepdim", false)), nullptr}};
}

// --- Products with something added ---

Pair product(Call& call, const Complex& a, const Complex& b, bool transpose_b) {
  const auto matmul = [&](Value* x, Value* y) {
    return Expr(call, call.make(Op::matmul, {x, y}, {{"transpose_b", transpose_b}}));
  };
  return {matmul(a.re, b.re) - matmul(a.im, b.im), matmul(a.re, b.im) + matmul(a.im, b.re)};
}

// beta self + alpha a b
Results add_product(Call& call, const char* a, const char* b) {
  const DType dtype = result_part(call);
  Pair result = product(call, call.complex(a), call.complex(b), false);
  if (call.has("alpha")) result = result * Pair::of(call, "alpha", dtype);
  Pair added = self(call);
  if (call.has("beta")) added = added * Pair::of(call, "beta", dtype);
  return {Pair{result.re + added.re, result.im + added.im}.value(call)};
}
Results import_addmm(Call& call) { return add_product(call, "mat1", "mat2"); }
Results import_baddbmm(Call& call) { return add_product(call, "batch1", "batch2"); }

Results import_linear(Call& call) {
  Complex x = call.complex("input");
  const Complex weight = call.complex("weight");
  call.expect(x.re->type.rank() >= 1 && weight.re->type.rank() == 2,
              shape_text(x.re->type.shape) + " by " + shape_text(weight.re->type.shape),
              "rows, and a matrix");
  const bool is_row = x.re->type.rank() == 1;
  if (is_row) x = {unsqueeze(call, x.re, 0), unsqueeze(call, x.im, 0)};
  Pair result = product(call, x, weight, true);
  if (is_row) {
    const auto row = [&](Value* part) {
      return Expr(call, call.builder().reshape(part, {part->type.shape[1]}));
    };
    result = {row(result.re), row(result.im)};
  }
  if (!call.has("bias")) return {result.value(call)};
  const Pair bias = Pair::of(call, "bias", result_part(call));
  return {Pair{result.re + bias.re, result.im + bias.im}.value(call)};
}

constexpr ComplexRow kRows[] = {
    {"aten.sqrt.default", unary<root>},
    {"aten.rsqrt.default", unary<reciprocal_root>},
    {"aten.sin.default", unary<sine>},
    {"aten.cos.default", unary<cosine>},
    {"aten.tan.default", unary<tangent>},
    {"aten.asin.default", unary_in_f64<inverse_sine>},
    {"aten.acos.default", unary_in_f64<inverse_cosine>},
    {"aten.atan.default", unary_in_f64<inverse_tangent>},
    {"aten.asinh.default", unary_in_f64<inverse_hyperbolic_sine>},
    {"aten.acosh.default", unary_in_f64<inverse_hyperbolic_cosine>},
    {"aten.atanh.default", unary_in_f64<inverse_hyperbolic_tangent>},
    {"aten.log1p.default", unary_in_f64<logarithm_of_one_more>},
    {"aten.expm1.default", unary_in_f64<exponential_less_one>},
    {"aten.sinh.default", unary<hyperbolic_sine>},
    {"aten.cosh.default", unary<hyperbolic_cosine>},
    {"aten.tanh.default", unary<hyperbolic_tangent>},
    {"aten.sigmoid.default", unary<sigmoid>},
    {"aten.silu.default", unary<silu>},
    {"aten.exp2.default", unary<power_of_two>},
    {"aten.log2.default", unary<logarithm_to_base<Op::log2>>},
    {"aten.log10.default", unary<logarithm_to_base<Op::log10>>},
    {"aten.pow.Tensor_Tensor", import_pow},
    {"aten.pow.Scalar", import_pow},
    {"aten.where.ScalarOther", import_where},
    {"aten.where.ScalarSelf", import_where},
    {"aten.logical_and.default", import_logical<Op::bitwise_and>},
    {"aten.logical_or.default", import_logical<Op::bitwise_or>},
    {"aten.logical_xor.default", import_logical<Op::ne>},
    {"aten.logical_not.default", import_logical_not},
    {"aten.any.default", import_any_all<Op::reduce_max>},
    {"aten.any.dim", import_any_all<Op::reduce_max>},
    {"aten.any.dims", import_any_all<Op::reduce_max>},
    {"aten.all.default", import_any_all<Op::reduce_min>},
    {"aten.all.dim", import_any_all<Op::reduce_min>},
    {"aten.all.dims", import_any_all<Op::reduce_min>},
    {"aten.count_nonzero.default", import_count_nonzero},
    {"aten.count_nonzero.dim_IntList", import_count_nonzero},
    {"aten.linalg_vector_norm.default", import_norm},
    {"aten.norm.Scalar", import_norm},
    {"aten.norm.ScalarOpt_dim", import_norm},
    {"aten.addmm.default", import_addmm},
    {"aten.baddbmm.default", import_baddbmm},
    {"aten.linear.default", import_linear},
};

}  // namespace

ComplexRows complex_function_rows() { return kRows; }

}  // namespace kiln::import
