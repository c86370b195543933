// Element-wise arithmetic: one, two or three operands.
#include <cmath>
#include <numbers>

#include "import/ops/common.h"

namespace kiln::import {
namespace {

// Ops that keep the dtype, and those that make integers f32.
template <Op op>
Value* unary(Call& call) {
  return call.make(op, {call.tensor("self")});
}

template <Op op>
Value* unary_floating(Call& call) {
  return floating(call, "self").apply(op);
}

// Rounding does nothing to integers.
template <Op op>
Value* rounding(Call& call) {
  Value* x = call.tensor("self");
  return is_floating(x->type.dtype) ? call.make(op, {x}) : x;
}

// 0 for NaN, as in PyTorch.
Value* import_sign(Call& call) {
  const Expr x(call, call.tensor("self"));
  if (!is_floating(x.value()->type.dtype)) return x.apply(Op::sign);
  return x.apply(Op::isnan).select(x.constant(0), x.apply(Op::sign));
}

Value* import_round_decimals(Call& call) {
  const Expr x(call, call.tensor("self"));
  const double scale = std::pow(10.0, std::abs(static_cast<double>(call.integer("decimals"))));
  if (call.integer("decimals") >= 0) return (x * scale).apply(Op::round) / scale;
  return (x / scale).apply(Op::round) * scale;
}

Expr compose_log2(Call&, const Expr& x) { return x.apply(Op::log) * std::numbers::log2e; }
Expr compose_log10(Call&, const Expr& x) { return x.apply(Op::log) * std::numbers::log10e; }

Expr compose_exp2(Call&, const Expr& x) { return x.constant(2).apply(Op::pow, x); }

Expr compose_tan(Call&, const Expr& x) { return x.apply(Op::sin) / x.apply(Op::cos); }

// expm1 keeps the digits that exp would lose near zero.
Expr compose_sinh(Call&, const Expr& x) {
  return (x.apply(Op::expm1) - (-x).apply(Op::expm1)) * 0.5;
}

Expr compose_cosh(Call&, const Expr& x) { return (x.apply(Op::exp) + (-x).apply(Op::exp)) * 0.5; }

// sign(x) * log1p(|x| + x^2 / (1 + sqrt(x^2 + 1))); log(|x|) + log(2) where the square would
// overflow.
Expr compose_asinh(Call&, const Expr& x) {
  const Expr a = x.apply(Op::abs), square = x * x;
  const Expr correction = square / ((square + 1).apply(Op::sqrt) + 1);
  const Expr large = a.apply(Op::log) + std::numbers::ln2;
  return x.apply(Op::sign) * a.apply(Op::gt, 1e9).select(large, (a + correction).apply(Op::log1p));
}

// log1p(t + sqrt(2 t + t^2)), t = x - 1
Expr compose_acosh(Call&, const Expr& x) {
  const Expr t = x - 1;
  return (t + (t * 2 + t * t).apply(Op::sqrt)).apply(Op::log1p);
}

Expr compose_atanh(Call&, const Expr& x) { return (x * 2 / (1 - x)).apply(Op::log1p) * 0.5; }

Expr compose_atan(Call&, const Expr& x) { return x.apply(Op::atan2, 1); }

// sqrt(1 - x^2), with full precision near the ends.
Expr complement(const Expr& x) { return ((1 - x) * (x + 1)).apply(Op::sqrt); }

Expr compose_asin(Call&, const Expr& x) { return x.apply(Op::atan2, complement(x)); }

Expr compose_acos(Call&, const Expr& x) { return complement(x).apply(Op::atan2, x); }

Expr compose_erfc(Call&, const Expr& x) { return 1 - x.apply(Op::erf); }

Value* import_square(Call& call) {
  Value* x = call.tensor("self");
  return call.make(Op::mul, {x, x});
}

Value* import_frac(Call& call) {
  const Expr x(call, call.tensor("self"));
  return x - x.apply(Op::trunc);
}

Expr compose_logit(Call& call, const Expr& x) {
  const double eps = call.real_or("eps", 0);
  const Expr p = call.has("eps") ? x.apply(Op::maximum, eps).apply(Op::minimum, 1 - eps) : x;
  return (p / (1 - p)).apply(Op::log);
}

Value* import_nan_to_num(Call& call) {
  const Expr x(call, call.tensor("self"));
  const DType dtype = x.value()->type.dtype;
  if (!is_floating(dtype)) return x;
  double largest = std::numeric_limits<float>::max();
  if (dtype == DType::F64) largest = std::numeric_limits<double>::max();
  if (dtype == DType::F16) largest = 65504;
  if (dtype == DType::BF16) largest = 0x1.fep127;
  const Expr known = x.apply(Op::isnan).select(x.constant(call.real_or("nan", 0)), x);
  const Expr infinity = x.constant(std::numeric_limits<double>::infinity());
  const Expr high =
      known.apply(Op::eq, infinity).select(x.constant(call.real_or("posinf", largest)), known);
  return high.apply(Op::eq, -infinity).select(x.constant(call.real_or("neginf", -largest)), high);
}

// Two operands in their common dtype.
struct Pair {
  Expr a, b;
};

Pair promoted(Call& call, std::string_view first = "self", std::string_view second = "other") {
  const std::vector<Value*> values =
      promote(call.builder(), {call.operand(first), call.operand(second)});
  return {{call, values[0]}, {call, values[1]}};
}

Pair promoted_floating(Call& call, std::string_view first = "self",
                       std::string_view second = "other") {
  const Operand operands[] = {call.operand(first), call.operand(second)};
  const DType dtype = floating_result_type(operands);
  return {{call, as_value(call.builder(), operands[0], dtype)},
          {call, as_value(call.builder(), operands[1], dtype)}};
}

template <Op op>
Value* binary(Call& call) {
  const Pair pair = promoted(call);
  return pair.a.apply(op, pair.b);
}

template <Op op>
Value* binary_floating(Call& call) {
  const Pair pair = promoted_floating(call);
  return pair.a.apply(op, pair.b);
}

// Division of integers by zero is an error when the model runs, as in PyTorch.
Expr checked_divisor(Call& call, const Expr& divisor, const char* name) {
  if (!is_integer(divisor.value()->type.dtype)) return divisor;
  return {call, call.make(Op::check_nonzero, {divisor}, {{"operator", std::string(name)}})};
}

template <Op op>
Value* division(Call& call) {
  const Pair pair = promoted(call);
  const char* name = op == Op::floor_div ? "floor_divide" : op == Op::fmod ? "fmod" : "remainder";
  return pair.a.apply(op, checked_divisor(call, pair.b, name));
}

bool is_one(const Number& number) {
  return !std::holds_alternative<ir::Dim>(number) && number_as_double(number) == 1;
}

// a + alpha * b, a - alpha * b
template <Op op>
Value* import_add_sub(Call& call) {
  const Pair pair = promoted(call);
  const Number alpha = call.number_or("alpha", int64_t{1});
  if (is_one(alpha)) return pair.a.apply(op, pair.b);
  const Expr factor(call, as_value(call.builder(), alpha, pair.b.value()->type.dtype));
  return pair.a.apply(op, pair.b * factor);
}

Value* import_rsub(Call& call) {
  const Pair pair = promoted(call);
  const Number alpha = call.number_or("alpha", int64_t{1});
  if (is_one(alpha)) return pair.b - pair.a;
  return pair.b - pair.a * Expr(call, as_value(call.builder(), alpha, pair.a.value()->type.dtype));
}

Value* import_div_mode(Call& call) {
  if (!call.has("rounding_mode")) return binary_floating<Op::div>(call);
  const std::string mode = call.text_or("rounding_mode", "");
  if (mode == "floor") return division<Op::floor_div>(call);
  call.expect(mode == "trunc", "rounding_mode \"" + mode + "\"", "trunc or floor");
  const Pair pair = promoted(call);
  const Expr quotient = pair.a / checked_divisor(call, pair.b, "div");  // of integers: truncates
  return is_floating(quotient.value()->type.dtype) ? quotient.apply(Op::trunc) : quotient;
}

// PyTorch computes these exponents without pow, so that the results differ in the last bit.
Value* import_pow_scalar(Call& call) {
  const Pair pair = promoted(call, "self", "exponent");
  const Expr& x = pair.a;
  const Number exponent = call.number("exponent");
  if (std::holds_alternative<ir::Dim>(exponent)) return x.apply(Op::pow, pair.b);
  const double power = number_as_double(exponent);
  if (power == 1) return x;
  if (power == 2) return x * x;
  if (power == 3) return x * x * x;
  if (is_floating(x.value()->type.dtype)) {
    if (power == 0.5) return x.apply(Op::sqrt);
    if (power == -0.5) return x.apply(Op::rsqrt);
    if (power == -1) return x.apply(Op::reciprocal);
    if (power == -2) return (x * x).apply(Op::reciprocal);
  } else {
    call.expect(power >= 0, "a negative power of integers", "a power of 0 or more");
  }
  return x.apply(Op::pow, pair.b);
}

Value* import_pow(Call& call) {
  const Pair pair = promoted(call, "self", "exponent");
  return pair.a.apply(Op::pow, pair.b);
}

Value* import_clamp(Call& call) {
  std::vector<Operand> operands{call.operand("self")};
  for (const char* bound : {"min", "max"}) {
    if (call.has(bound)) operands.push_back(call.operand(bound));
  }
  call.expect(operands.size() > 1, "neither min nor max", "one of them");
  const DType dtype = result_type(operands);
  Expr x(call, as_value(call.builder(), operands[0], dtype));
  const auto bound = [&](const char* name) {
    return Expr(call, as_value(call.builder(), call.operand(name), dtype));
  };
  if (call.has("min")) x = x.apply(Op::maximum, bound("min"));
  if (call.has("max")) x = x.apply(Op::minimum, bound("max"));
  return x;
}

// self + value * tensor1 * tensor2, self + value * tensor1 / tensor2
template <Op op>
Value* import_addc(Call& call) {
  const std::vector<Value*> values = promote(
      call.builder(), {call.operand("self"), call.operand("tensor1"), call.operand("tensor2")});
  const Expr self(call, values[0]), a(call, values[1]), b(call, values[2]);
  const Number factor = call.number_or("value", int64_t{1});
  if (is_one(factor)) return self + a.apply(op, b);
  const Expr scaled = a * Expr(call, as_value(call.builder(), factor, a.value()->type.dtype));
  return self + scaled.apply(op, b);
}

Value* import_lerp(Call& call) {
  const std::vector<Value*> values =
      promote(call.builder(), {call.operand("self"), call.operand("end"), call.operand("weight")});
  const Expr start(call, values[0]), end(call, values[1]), weight(call, values[2]);
  return start + weight * (end - start);
}

Value* import_hypot(Call& call) {
  const Pair pair = promoted(call);
  return (pair.a * pair.a + pair.b * pair.b).apply(Op::sqrt);
}

// max(a, b) + log1p(exp(-|a - b|)); equal infinities would give NaN, so they are taken as they are.
Value* import_logaddexp(Call& call) {
  const Pair pair = promoted(call);
  const Expr larger = pair.a.apply(Op::maximum, pair.b);
  const Expr sum = larger + (-(pair.a - pair.b).apply(Op::abs)).apply(Op::exp).apply(Op::log1p);
  return pair.a.apply(Op::eq, pair.b).select(larger + std::numbers::ln2, sum);
}

// x * log(y), and 0 where x is.
Value* import_xlogy(Call& call) {
  const Pair pair = promoted_floating(call);
  const Expr product = pair.a * pair.b.apply(Op::log);
  const Expr nan_or_zero = pair.b.apply(Op::isnan).select(pair.b, pair.b.constant(0));
  return pair.a.apply(Op::eq, 0).select(nan_or_zero, product);
}

Value* import_where(Call& call) {
  Value* condition = call.tensor("condition");
  if (condition->type.dtype != DType::Bool) condition = call.builder().cast(condition, DType::Bool);
  const Pair pair = promoted(call);
  return call.make(Op::where, {condition, pair.a, pair.b});
}

// Where the mask is set, `value` in the dtype of self.
Value* import_masked_fill(Call& call) {
  Value* x = call.tensor("self");
  Value* value = as_value(call.builder(), call.operand("value"), x->type.dtype);
  return call.make(Op::where, {call.tensor("mask"), value, x});
}

constexpr Row kRows[] = {
    {"aten.abs.default", unary<Op::abs>},
    {"aten.absolute.default", unary<Op::abs>},
    {"aten.neg.default", unary<Op::neg>},
    {"aten.negative.default", unary<Op::neg>},
    {"aten.sign.default", import_sign},
    {"aten.sgn.default", import_sign},
    {"aten.square.default", import_square},
    {"aten.floor.default", rounding<Op::floor>},
    {"aten.ceil.default", rounding<Op::ceil>},
    {"aten.trunc.default", rounding<Op::trunc>},
    {"aten.fix.default", rounding<Op::trunc>},
    {"aten.round.default", rounding<Op::round>},
    {"aten.round.decimals", import_round_decimals},
    {"aten.frac.default", import_frac},
    {"aten.exp.default", unary_floating<Op::exp>},
    {"aten.exp2.default", composed<compose_exp2>},
    {"aten.expm1.default", unary_floating<Op::expm1>},
    {"aten.log.default", unary_floating<Op::log>},
    {"aten.log2.default", composed<compose_log2>},
    {"aten.log10.default", composed<compose_log10>},
    {"aten.log1p.default", unary_floating<Op::log1p>},
    {"aten.logit.default", composed<compose_logit>},
    {"aten.sqrt.default", unary_floating<Op::sqrt>},
    {"aten.rsqrt.default", unary_floating<Op::rsqrt>},
    {"aten.reciprocal.default", unary_floating<Op::reciprocal>},
    {"aten.sin.default", unary_floating<Op::sin>},
    {"aten.cos.default", unary_floating<Op::cos>},
    {"aten.tan.default", composed<compose_tan>},
    {"aten.asin.default", composed<compose_asin>},
    {"aten.acos.default", composed<compose_acos>},
    {"aten.atan.default", composed<compose_atan>},
    {"aten.sinh.default", composed<compose_sinh>},
    {"aten.cosh.default", composed<compose_cosh>},
    {"aten.asinh.default", composed<compose_asinh>},
    {"aten.acosh.default", composed<compose_acosh>},
    {"aten.atanh.default", composed<compose_atanh>},
    {"aten.erf.default", unary_floating<Op::erf>},
    {"aten.special_erf.default", unary_floating<Op::erf>},
    {"aten.erfc.default", composed<compose_erfc>},
    {"aten.nan_to_num.default", import_nan_to_num},
    {"aten.add.Tensor", import_add_sub<Op::add>},
    {"aten.add.Scalar", import_add_sub<Op::add>},
    {"aten.sub.Tensor", import_add_sub<Op::sub>},
    {"aten.sub.Scalar", import_add_sub<Op::sub>},
    {"aten.subtract.Tensor", import_add_sub<Op::sub>},
    {"aten.rsub.Tensor", import_rsub},
    {"aten.rsub.Scalar", import_rsub},
    {"aten.mul.Tensor", binary<Op::mul>},
    {"aten.mul.Scalar", binary<Op::mul>},
    {"aten.multiply.Tensor", binary<Op::mul>},
    {"aten.div.Tensor", binary_floating<Op::div>},
    {"aten.div.Scalar", binary_floating<Op::div>},
    {"aten.divide.Tensor", binary_floating<Op::div>},
    {"aten.true_divide.Tensor", binary_floating<Op::div>},
    {"aten.div.Tensor_mode", import_div_mode},
    {"aten.div.Scalar_mode", import_div_mode},
    {"aten.floor_divide.default", division<Op::floor_div>},
    {"aten.floor_divide.Scalar", division<Op::floor_div>},
    {"aten.remainder.Tensor", division<Op::remainder>},
    {"aten.remainder.Scalar", division<Op::remainder>},
    {"aten.fmod.Tensor", division<Op::fmod>},
    {"aten.fmod.Scalar", division<Op::fmod>},
    {"aten.pow.Tensor_Tensor", import_pow},
    {"aten.pow.Tensor_Scalar", import_pow_scalar},
    {"aten.pow.Scalar", import_pow},
    {"aten.atan2.default", binary_floating<Op::atan2>},
    {"aten.arctan2.default", binary_floating<Op::atan2>},
    {"aten.hypot.default", import_hypot},
    {"aten.logaddexp.default", import_logaddexp},
    {"aten.xlogy.Tensor", import_xlogy},
    {"aten.xlogy.Scalar_Other", import_xlogy},
    {"aten.xlogy.Scalar_Self", import_xlogy},
    {"aten.maximum.default", binary<Op::maximum>},
    {"aten.minimum.default", binary<Op::minimum>},
    {"aten.max.other", binary<Op::maximum>},
    {"aten.min.other", binary<Op::minimum>},
    {"aten.clamp.default", import_clamp},
    {"aten.clamp.Tensor", import_clamp},
    {"aten.clip.default", import_clamp},
    {"aten.clip.Tensor", import_clamp},
    {"aten.clamp_min.default", import_clamp},
    {"aten.clamp_min.Tensor", import_clamp},
    {"aten.clamp_max.default", import_clamp},
    {"aten.clamp_max.Tensor", import_clamp},
    {"aten.addcmul.default", import_addc<Op::mul>},
    {"aten.addcdiv.default", import_addc<Op::div>},
    {"aten.lerp.Scalar", import_lerp},
    {"aten.lerp.Tensor", import_lerp},
    {"aten.where.self", import_where},
    {"aten.where.ScalarSelf", import_where},
    {"aten.where.ScalarOther", import_where},
    {"aten.where.Scalar", import_where},
    {"aten.masked_fill.Scalar", import_masked_fill},
    {"aten.masked_fill.Tensor", import_masked_fill},
};

}  // namespace

Rows pointwise_rows() { return kRows; }

}  // namespace kiln::import
