// What floating-point numbers are made of: mantissa and exponent, and the numbers next to them. Computed in f64, in which the
// numbers of shorter types have exact neighbours.
#include <limits>

#include "import/ops/common.h"

namespace kiln::import {
namespace {

// 2^n for whole n, where it is a number: of two factors, so that neither overflows and numbers below the normal ones are exact.
Expr power_of_two(const Expr& n) {
  const Expr half = (n * 0.5).apply(Op::floor);
  return half.apply(Op::exp2) * (n - half).apply(Op::exp2);
}

// |x| = mantissa 2^exponent with a mantissa in [1, 2), of finite x other than 0.
struct Parts {
  Expr mantissa, exponent;
};

Parts parts_of(const Expr& x) {
  constexpr int kShift = 64;
  const Expr size = x.apply(Op::abs);
  const Expr is_small = size.apply(Op::lt, std::numeric_limits<double>::min());
  const Expr scaled = is_small.select(size * 0x1p64, size);
  // The logarithm may be off by its last digit: then the mantissa is just outside.
  const Expr guess = scaled.apply(Op::log2).apply(Op::floor);
  const Expr half = (guess * 0.5).apply(Op::floor);
  const Expr near = scaled * (-half).apply(Op::exp2) * (half - guess).apply(Op::exp2);
  const Expr is_high = near.apply(Op::ge, 2), is_low = near.apply(Op::lt, 1);
  const Expr mantissa = is_high.select(near * 0.5, is_low.select(near * 2, near));
  const Expr exponent = is_high.select(guess + 1, is_low.select(guess - 1, guess));
  return {mantissa, is_small.select(exponent - kShift, exponent)};
}

// Where there are no parts: zeros, infinities and NaN.
Expr is_special(const Expr& x) {
  return x.apply(Op::eq, 0) + x.apply(Op::isinf) + x.apply(Op::isnan);
}

// x = mantissa 2^exponent with a mantissa in [1/2, 1); what has none is its own, with the exponent 0.
std::vector<Value*> import_frexp(Call& call) {
  const Expr given = floating(call, "self");
  const DType dtype = given.value()->type.dtype;
  const Expr x(call, call.builder().cast(given, DType::F64));
  const Expr special = is_special(x);
  const Parts parts = parts_of(special.select(x.constant(1), x));
  const Expr half = parts.mantissa * 0.5;
  const Expr mantissa = special.select(x, x.apply(Op::lt, 0).select(-half, half));
  const Expr exponent = special.select(x.constant(0), parts.exponent + 1);
  return {call.builder().cast(mantissa, dtype), call.builder().cast(exponent, DType::I32)};
}

// Digits behind the point of a mantissa, and the exponent of the least normal number.
struct Format {
  int digits, least;
};

Format format_of(DType dtype) {
  switch (dtype) {
    case DType::F64:
      return {52, -1022};
    case DType::F16:
      return {10, -14};
    case DType::BF16:
      return {7, -126};
    default:
      return {23, -126};
  }
}

// The next number after x in the direction of `other`: away from 0 by one unit in the last place, or towards it, where units
// below a power of two are half as large.
Value* import_nextafter(Call& call) {
  const std::vector<Value*> values =
      promote(call.builder(), {call.operand("self"), call.operand("other")});
  const DType dtype = values[0]->type.dtype;
  const Format format = format_of(dtype);
  const Expr x(call, call.builder().cast(values[0], DType::F64));
  const Expr other(call, call.builder().cast(values[1], DType::F64));
  const Expr special = is_special(x);
  const Parts parts = parts_of(special.select(x.constant(1), x));
  const Expr size = x.apply(Op::abs), is_up = other.apply(Op::gt, x);
  const Expr is_negative = x.apply(Op::lt, 0);
  const Expr goes_away = is_negative.apply(Op::ne, is_up);
  const Expr is_power = parts.mantissa.apply(Op::eq, 1) *
                        parts.exponent.apply(Op::gt, static_cast<double>(format.least));
  const Expr exponent = parts.exponent.apply(Op::maximum, static_cast<double>(format.least)) -
                        static_cast<double>(format.digits);
  const Expr below = is_power.select(exponent - 1, exponent);
  const Expr moved = goes_away.select(size + power_of_two(exponent), size - power_of_two(below));
  const Expr least = power_of_two(x.constant(format.least - format.digits));
  // Towards 0 from infinity is the largest number.
  const Expr largest =
      power_of_two(x.constant(-format.least)) * (4 - power_of_two(x.constant(1 - format.digits)));
  const Expr from_special = x.apply(Op::eq, 0).select(least, largest);
  const Expr next = special.select(from_special, moved);
  const Expr turns = x.apply(Op::eq, 0).select(is_up.apply(Op::logical_not), is_negative);
  const Expr is_nan = x.apply(Op::isnan) + other.apply(Op::isnan);
  const Expr result = x.apply(Op::eq, other).select(other, turns.select(-next, next));
  return call.builder().cast(is_nan.select(x + other, result), dtype);
}

constexpr Row kRows[] = {
    {"aten.frexp.Tensor", import_frexp},
    {"aten.nextafter.default", import_nextafter},
};

}  // namespace

Rows representation_rows() { return kRows; }

}  // namespace kiln::import
