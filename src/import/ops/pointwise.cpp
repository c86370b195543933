// Element-wise arithmetic: one, two or three operands.
#include <cmath>
#include <numbers>

#include "import/ops/common.h"
#include "ir/scalar.h"

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

// 0 for NaN and for both zeros, as in PyTorch.
Value* import_sign(Call& call) {
  const Expr x(call, call.tensor("self"));
  if (!is_floating(x.value()->type.dtype)) return x.apply(Op::sign);
  return x.apply(Op::abs).apply(Op::gt, 0).select(x.apply(Op::sign), x.constant(0));
}

Expr compose_round_decimals(Call& call, const Expr& x) {
  const double scale = std::pow(10.0, std::abs(static_cast<double>(call.integer("decimals"))));
  if (call.integer("decimals") >= 0) return (x * scale).apply(Op::round) / scale;
  return (x / scale).apply(Op::round) * scale;
}

Expr compose_atan(Call&, const Expr& x) { return x.apply(Op::atan2, 1); }

Value* import_square(Call& call) {
  Value* x = call.tensor("self");
  if (x->type.dtype == DType::Bool) x = call.builder().cast(x, DType::I64);  // x^2, with a number
  return call.make(Op::mul, {x, x});
}

Value* import_frac(Call& call) {
  const Expr x(call, call.tensor("self"));
  return x - x.apply(Op::trunc);
}

Expr clamped_probability(Call& call, const Expr& x) {
  const double eps = call.real_or("eps", 0);
  return call.has("eps") ? x.apply(Op::maximum, eps).apply(Op::minimum, 1 - eps) : x;
}

// log(p / (1 - p)). Near 1/2 the quotient is near 1: log1p((2 p - 1) / (1 - p)) keeps the digits.
Expr compose_logit(Call& call, const Expr& x) {
  const Expr p = clamped_probability(call, x);
  const Expr other = 1 - p, centred = p * 2 - 1;
  const Expr middle = (centred / other).apply(Op::log1p);
  return centred.apply(Op::abs).apply(Op::lt, 0.5).select(middle, (p / other).apply(Op::log));
}

// Of 16 bits, PyTorch rounds every step.
Value* import_logit(Call& call) {
  if (!is_16_bit_float(call.tensor("self")->type.dtype)) {
    return composed_in_f64<compose_logit>(call);
  }
  const Expr p = clamped_probability(call, floating(call, "self"));
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

bool is_scalar(const Operand& operand) {
  return operand.tensor == nullptr || operand.tensor->type.rank() == 0;
}

bool is_one_element(const Operand& operand) {
  return operand.tensor != nullptr && operand.tensor->type.elements().is_constant(1);
}

// Whether the operand is a number, or a tensor of rank 0, that 16 bits do not hold.
bool exceeds(const Operand& operand, DType dtype) {
  if (operand.tensor != nullptr) {
    return operand.tensor->type.rank() == 0 && !is_lossless(operand.tensor->type.dtype, dtype);
  }
  const auto* dim = std::get_if<ir::Dim>(&operand.number);
  if (dim != nullptr && !dim->is_constant()) return true;
  const double value = number_as_double(operand.number);
  return !std::isnan(value) && ir::make_scalar(dtype, value).number != value;
}

// Products and quotients of 16-bit tensors take numbers as they are: x * 0.1 rounds the product,
// not 0.1. Sums and differences do round them.
void keep_numbers(Call& call) {
  const Operand operands[] = {call.operand("self"), call.operand("other")};
  const DType dtype = result_type(operands);
  if (is_16_bit_float(dtype) && (exceeds(operands[0], dtype) || exceeds(operands[1], dtype))) {
    call.compute_in_f32();
  }
}

// A function of two operands that takes several steps: each rounds to `compute`, and the result to
// the dtype of the operands.
using PairComposition = Expr (*)(const Expr& a, const Expr& b);
Value* compose_pair(Call& call, const Pair& pair, DType compute, PairComposition function) {
  const auto wide = [&](const Expr& x) { return Expr(call, call.builder().cast(x, compute)); };
  const DType dtype = pair.a.value()->type.dtype;
  return call.builder().cast(function(wide(pair.a), wide(pair.b)), dtype);
}

template <Op op>
Value* binary(Call& call) {
  const Pair pair = promoted(call);
  return pair.a.apply(op, pair.b);
}

template <Op op>
Value* arithmetic(Call& call) {
  keep_numbers(call);
  return binary<op>(call);
}

template <Op op>
Value* binary_floating(Call& call) {
  if (op == Op::div) keep_numbers(call);
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
  if (op == Op::floor_div) keep_numbers(call);
  const Pair pair = promoted(call);
  const char* name = op == Op::floor_div ? "floor_divide" : op == Op::fmod ? "fmod" : "remainder";
  return pair.a.apply(op, checked_divisor(call, pair.b, name));
}

// Of a floating x, zeros included; NaN counts as positive.
Expr is_negative(const Expr& x) {
  const double infinity = std::numeric_limits<double>::infinity();
  const Expr below = x.apply(Op::lt, 0);
  const Expr is_negative_zero = x.apply(Op::reciprocal).apply(Op::eq, -infinity);
  return x.apply(Op::eq, 0) * is_negative_zero + below;
}

Value* import_signbit(Call& call) {
  const Expr x(call, call.tensor("self"));
  const DType dtype = x.value()->type.dtype;
  if (is_floating(dtype)) return is_negative(x);
  return dtype == DType::Bool ? x.apply(Op::ne, x) : x.apply(Op::lt, 0);
}

// Of a real number: 0, or pi if it is negative.
Expr compose_angle(Call&, const Expr& x) {
  const Expr angle = x.apply(Op::lt, 0).select(x.constant(std::numbers::pi), x.constant(0));
  return x.apply(Op::isnan).select(x, angle);
}

Value* import_copysign(Call& call) {
  const Pair pair = promoted_floating(call);
  const Expr size = pair.a.apply(Op::abs);
  return is_negative(pair.b).select(-size, size);
}

bool is_one(const Number& number) {
  return !std::holds_alternative<ir::Dim>(number) && number_as_double(number) == 1;
}

// a + alpha * b, a - alpha * b: of 16 bits, alpha is rounded, and then the result.
Value* add_scaled(Call& call, Op op, const Pair& pair, const Number& alpha) {
  if (is_one(alpha)) return pair.a.apply(op, pair.b);
  ir::Builder& builder = call.builder();
  const DType dtype = pair.a.value()->type.dtype;
  const DType compute = is_16_bit_float(dtype) ? DType::F32 : dtype;
  const auto widened = [&](Value* x) { return Expr(call, builder.cast(x, compute)); };
  const Expr scaled = widened(pair.b) * widened(as_value(builder, alpha, dtype));
  return builder.cast(widened(pair.a).apply(op, scaled), dtype);
}

template <Op op>
Value* import_add_sub(Call& call) {
  return add_scaled(call, op, promoted(call), call.number_or("alpha", int64_t{1}));
}

Value* import_rsub(Call& call) {
  const Pair pair = promoted(call);
  return add_scaled(call, Op::sub, {pair.b, pair.a}, call.number_or("alpha", int64_t{1}));
}

Value* import_div_mode(Call& call) {
  if (!call.has("rounding_mode")) return binary_floating<Op::div>(call);
  const std::string mode = call.text_or("rounding_mode", "");
  if (mode == "floor") return division<Op::floor_div>(call);
  call.expect(mode == "trunc", "rounding_mode \"" + mode + "\"", "trunc or floor");
  // The quotient by a tensor is rounded before it is truncated, that by a number or a single element is not.
  const Operand other = call.operand("other");
  if (is_scalar(other) || is_one_element(other)) call.compute_in_f32();
  const Pair pair = promoted(call);
  const DType dtype = pair.a.value()->type.dtype;
  if (is_16_bit_float(dtype)) {
    ir::Builder& builder = call.builder();
    const auto widened = [&](const Expr& x) {
      return Expr(call, builder.cast(x.value(), DType::F32));
    };
    const Expr quotient = widened(pair.a) / widened(pair.b);
    return Expr(call, builder.cast(quotient.value(), dtype)).apply(Op::trunc);
  }
  const Expr quotient = pair.a / checked_divisor(call, pair.b, "div");  // of integers: truncates
  return is_floating(dtype) ? quotient.apply(Op::trunc) : quotient;
}

bool is_product(double power) { return power == 3 || power == -2; }

// x^-0.5, x^-2: PyTorch rounds bf16 in between.
Value* negative_power(const Expr& x, double power) {
  if (x.value()->type.dtype == DType::BF16 && power == -0.5) {
    return x.apply(Op::sqrt).apply(Op::reciprocal);
  }
  return power == -0.5 ? x.apply(Op::rsqrt) : (x * x).apply(Op::reciprocal);
}

// PyTorch computes these exponents without pow, so that the results differ in the last bit.
Value* import_pow_scalar(Call& call) {
  const Number exponent = call.number("exponent");
  if (!std::holds_alternative<ir::Dim>(exponent) && call.tensor("self")->type.dtype == DType::F16 &&
      is_product(number_as_double(exponent))) {
    call.compute_in_f32();
  }
  const Pair pair = promoted(call, "self", "exponent");
  const Expr& x = pair.a;
  if (std::holds_alternative<ir::Dim>(exponent)) return x.apply(Op::pow, pair.b);
  const double power = number_as_double(exponent);
  if (power == 1) return x;
  if (power == 2) return x * x;
  if (power == 3) return x * x * x;
  const DType dtype = x.value()->type.dtype;
  // Roots of f16 are powers: of -inf and -0 they are not those of sqrt.
  if (is_floating(dtype) && !(dtype == DType::F16 && std::abs(power) == 0.5)) {
    if (power == 0.5) return x.apply(Op::sqrt);
    if (power == -1) return x.apply(Op::reciprocal);
    if (power == -0.5 || power == -2) return negative_power(x, power);
  }
  call.expect(is_floating(dtype) || power >= 0, "a negative power of integers",
              "a power of 0 or more");
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

// Three operands of one dtype, and what to compute in.
struct Triple {
  std::vector<Expr> values;
  DType dtype, compute;
};

Triple promoted_three(Call& call, const char* second, const char* third) {
  const std::vector<Operand> operands = {call.operand("self"), call.operand(second),
                                         call.operand(third)};
  const DType dtype = result_type(operands), compute = compute_dtype(dtype);
  Triple result{{}, dtype, compute};
  for (const Operand& operand : operands) {
    // A number keeps the digits that the dtype has not.
    Value* value = as_value(call.builder(), operand, operand.tensor != nullptr ? dtype : compute);
    result.values.emplace_back(call, call.builder().cast(value, compute));
  }
  return result;
}

// self + value * tensor1 * tensor2, self + value * tensor1 / tensor2
template <Op op>
Value* import_addc(Call& call) {
  const Triple three = promoted_three(call, "tensor1", "tensor2");
  const Expr &self = three.values[0], &a = three.values[1], &b = three.values[2];
  const Number factor = call.number_or("value", int64_t{1});
  const Expr scaled =
      is_one(factor) ? a : a * Expr(call, as_value(call.builder(), factor, three.compute));
  return call.builder().cast(self + scaled.apply(op, b), three.dtype);
}

// From the nearer end: start + weight * (end - start) would miss `end`, whose digits may be lost in
// the difference.
Value* import_lerp(Call& call) {
  const Triple three = promoted_three(call, "end", "weight");
  const Expr &start = three.values[0], &end = three.values[1], &weight = three.values[2];
  const Expr near_start = weight.apply(Op::abs).apply(Op::lt, 0.5);
  const Expr share = near_start.select(weight, weight - 1);
  const Expr result = near_start.select(start, end) + share * (end - start);
  return call.builder().cast(result, three.dtype);
}

// max(a, b) + log1p(exp(-|a - b|)); equal infinities would give NaN, so they are taken as they are.
// The sum may cancel, so f32 is computed in f64.
Value* import_logaddexp(Call& call) {
  return compose_pair(call, promoted(call), DType::F64, [](const Expr& a, const Expr& b) {
    const Expr larger = a.apply(Op::maximum, b);
    const Expr sum = larger + (-(a - b).apply(Op::abs)).apply(Op::exp).apply(Op::log1p);
    return a.apply(Op::eq, b).select(larger + std::numbers::ln2, sum);
  });
}

// x * log(y), and 0 where x is.
Value* import_xlogy(Call& call) {
  const Pair pair = promoted_floating(call);
  const DType compute = compute_dtype(pair.a.value()->type.dtype);
  return compose_pair(call, pair, compute, [](const Expr& a, const Expr& b) {
    const Expr nan_or_zero = b.apply(Op::isnan).select(b, b.constant(0));
    return a.apply(Op::eq, 0).select(nan_or_zero, a * b.apply(Op::log));
  });
}

// The other one where one is NaN.
template <Op op>
Value* import_without_nan(Call& call) {
  const Pair pair = promoted(call);
  if (!is_floating(pair.a.value()->type.dtype)) return pair.a.apply(op, pair.b);
  const Expr extreme = pair.b.apply(Op::isnan).select(pair.a, pair.a.apply(op, pair.b));
  return pair.a.apply(Op::isnan).select(pair.b, extreme);
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
    {"aten._neg_view.default", unary<Op::neg>},
    {"aten._neg_view_copy.default", unary<Op::neg>},
    {"aten.negative.default", unary<Op::neg>},
    {"aten.sign.default", import_sign},
    {"aten.sgn.default", import_sign},
    {"aten.square.default", import_square},
    {"aten.floor.default", rounding<Op::floor>},
    {"aten.ceil.default", rounding<Op::ceil>},
    {"aten.trunc.default", rounding<Op::trunc>},
    {"aten.fix.default", rounding<Op::trunc>},
    {"aten.round.default", rounding<Op::round>},
    {"aten.round.decimals", composed<compose_round_decimals>},
    {"aten.frac.default", import_frac},
    {"aten.exp.default", unary_floating<Op::exp>},
    {"aten.exp2.default", unary_floating<Op::exp2>},
    {"aten.expm1.default", unary_floating<Op::expm1>},
    {"aten.log.default", unary_floating<Op::log>},
    {"aten.log2.default", unary_floating<Op::log2>},
    {"aten.log10.default", unary_floating<Op::log10>},
    {"aten.log1p.default", unary_floating<Op::log1p>},
    {"aten.logit.default", import_logit},
    {"aten.sqrt.default", unary_floating<Op::sqrt>},
    {"aten.rsqrt.default", unary_floating<Op::rsqrt>},
    {"aten.reciprocal.default", unary_floating<Op::reciprocal>},
    {"aten.sin.default", unary_floating<Op::sin>},
    {"aten.cos.default", unary_floating<Op::cos>},
    {"aten.tan.default", unary_floating<Op::tan>},
    {"aten.asin.default", unary_floating<Op::asin>},
    {"aten.acos.default", unary_floating<Op::acos>},
    {"aten.atan.default", composed<compose_atan>},
    {"aten.sinh.default", unary_floating<Op::sinh>},
    {"aten.cosh.default", unary_floating<Op::cosh>},
    {"aten.asinh.default", unary_floating<Op::asinh>},
    {"aten.acosh.default", unary_floating<Op::acosh>},
    {"aten.atanh.default", unary_floating<Op::atanh>},
    {"aten.erf.default", unary_floating<Op::erf>},
    {"aten.special_erf.default", unary_floating<Op::erf>},
    {"aten.erfc.default", unary_floating<Op::erfc>},
    {"aten.nan_to_num.default", import_nan_to_num},
    {"aten.add.Tensor", import_add_sub<Op::add>},
    {"aten.add.Scalar", import_add_sub<Op::add>},
    {"aten.sub.Tensor", import_add_sub<Op::sub>},
    {"aten.sub.Scalar", import_add_sub<Op::sub>},
    {"aten.subtract.Tensor", import_add_sub<Op::sub>},
    {"aten.rsub.Tensor", import_rsub},
    {"aten.rsub.Scalar", import_rsub},
    {"aten.mul.Tensor", arithmetic<Op::mul>},
    {"aten.mul.Scalar", arithmetic<Op::mul>},
    {"aten.multiply.Tensor", arithmetic<Op::mul>},
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
    {"aten.hypot.default", binary<Op::hypot>},
    {"aten.signbit.default", import_signbit},
    {"aten.angle.default", composed<compose_angle>},
    {"aten.copysign.Tensor", import_copysign},
    {"aten.copysign.Scalar", import_copysign},
    {"aten.logaddexp.default", import_logaddexp},
    {"aten.xlogy.Tensor", import_xlogy},
    {"aten.xlogy.Scalar_Other", import_xlogy},
    {"aten.xlogy.Scalar_Self", import_xlogy},
    {"aten.maximum.default", binary<Op::maximum>},
    {"aten.minimum.default", binary<Op::minimum>},
    {"aten.fmax.default", import_without_nan<Op::maximum>},
    {"aten.fmin.default", import_without_nan<Op::minimum>},
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
    {"aten.addcmul.default", in_f32<import_addc<Op::mul>>},
    {"aten.addcdiv.default", in_f32<import_addc<Op::div>>},
    {"aten.lerp.Scalar", in_f32<import_lerp>},
    {"aten.lerp.Tensor", in_f32<import_lerp>},
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
