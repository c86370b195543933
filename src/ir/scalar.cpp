#include "ir/scalar.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numbers>

#include "ir/op_table.h"
#include "support/error.h"
#include "support/half.h"

namespace kiln::ir {
namespace {

double round_to(DType dtype, double value) {
  switch (dtype) {
    case DType::F32:
      return static_cast<float>(value);
    case DType::F16:
      return f16_to_f32(f32_to_f16(static_cast<float>(value)));
    case DType::BF16:
      return bf16_to_f32(f32_to_bf16(static_cast<float>(value)));
    case DType::F8E4M3:
      return f8e4m3_to_f32(f32_to_f8e4m3(static_cast<float>(value)));
    default:
      return value;
  }
}

int64_t wrap_to(DType dtype, int64_t value) {
  switch (dtype) {
    case DType::I8:
      return static_cast<int8_t>(value);
    case DType::U8:
      return static_cast<uint8_t>(value);
    case DType::I16:
      return static_cast<int16_t>(value);
    case DType::I32:
      return static_cast<int32_t>(value);
    case DType::Bool:
      return value != 0;
    default:
      return value;
  }
}

// Two's complement: overflow wraps, as the narrower types do when they are stored.
int64_t wrap(uint64_t value) { return static_cast<int64_t>(value); }

// 1 + erf(u) = erfc(-u) and (1 + tanh(u)) / 2 = 1 / (1 + e^-2u) have digits left where x is
// negative. In long double, because a rounding of the exponent is seen in the result.
double gelu(double x, bool tanh_form) {
  const long double wide = x;
  if (!tanh_form) {
    const long double u = wide * std::numbers::sqrt2_v<long double> / 2;
    return static_cast<double>(wide / 2 * std::erfc(-u));
  }
  const long double slope = std::sqrt(2 / std::numbers::pi_v<long double>);
  const long double inner = slope * wide * (1 + 0.044715L * wide * wide);
  return static_cast<double>(wide / (1 + std::exp(-2 * inner)));
}

double sigmoid(double x) { return 1 / (1 + std::exp(-x)); }

double sign(double x) { return std::isnan(x) ? x : (x > 0) - (x < 0); }

struct Elementary {
  Op op;
  double (*function)(double x);
};

constexpr Elementary kElementary[] = {
    {Op::exp, std::exp},     {Op::exp2, std::exp2},   {Op::expm1, std::expm1},
    {Op::log, std::log},     {Op::log2, std::log2},   {Op::log10, std::log10},
    {Op::log1p, std::log1p}, {Op::sin, std::sin},     {Op::cos, std::cos},
    {Op::tan, std::tan},     {Op::asin, std::asin},   {Op::acos, std::acos},
    {Op::sinh, std::sinh},   {Op::cosh, std::cosh},   {Op::tanh, std::tanh},
    {Op::asinh, std::asinh}, {Op::acosh, std::acosh}, {Op::atanh, std::atanh},
    {Op::erf, std::erf},     {Op::erfc, std::erfc},
};

double unary(Op op, double x, bool gelu_tanh) {
  for (const auto& [elementary, function] : kElementary) {
    if (elementary == op) return function(x);
  }
  switch (op) {
    case Op::neg:
      return -x;
    case Op::abs:
      return std::fabs(x);
    case Op::sign:
      return sign(x);
    case Op::sqrt:
      return std::sqrt(x);
    case Op::rsqrt:
      return 1 / std::sqrt(x);
    case Op::reciprocal:
      return 1 / x;
    case Op::sigmoid:
      return sigmoid(x);
    case Op::relu:
      return x < 0 ? 0 : x;
    case Op::silu:
      return x * sigmoid(x);
    case Op::gelu:
      return gelu(x, gelu_tanh);
    case Op::floor:
      return std::floor(x);
    case Op::ceil:
      return std::ceil(x);
    case Op::round:
      return std::nearbyint(x);
    case Op::trunc:
      return std::trunc(x);
    default:
      break;
  }
  throw InternalError("[" + std::string(op_name(op)) + "] is not a floating unary op");
}

int64_t unary(Op op, int64_t x, DType dtype) {
  switch (op) {
    case Op::neg:
      return wrap(0 - static_cast<uint64_t>(x));
    case Op::abs:
      return x < 0 ? wrap(0 - static_cast<uint64_t>(x)) : x;
    case Op::sign:
      return (x > 0) - (x < 0);
    case Op::relu:
      return std::max<int64_t>(x, 0);
    case Op::bitwise_not:
      return dtype == DType::Bool ? !x : ~x;
    case Op::floor:
    case Op::ceil:
    case Op::round:
    case Op::trunc:
      return x;
    default:
      break;
  }
  throw InternalError("[" + std::string(op_name(op)) + "] is not an integer unary op");
}

double remainder(double a, double b) {
  const double result = std::fmod(a, b);
  return result != 0 && (result < 0) != (b < 0) ? result + b : result;
}

// PyTorch's formula, in the precision of the operands: from the exact remainder, so that the
// quotient is right where a / b rounds up to an integer.
template <typename T>
T floor_div(T a, T b) {
  if (b == 0) return a / b;
  const T rest = std::fmod(a, b);
  T quotient = (a - rest) / b;
  if (rest != 0 && (rest < 0) != (b < 0)) quotient -= 1;
  if (quotient == 0) return std::copysign(T{0}, a / b);
  const T floored = std::floor(quotient);
  return quotient - floored > T{0.5} ? floored + 1 : floored;
}

double floor_div(DType dtype, double a, double b) {
  if (dtype == DType::F64) return floor_div<double>(a, b);
  return floor_div<float>(static_cast<float>(a), static_cast<float>(b));
}

// NaN if either is.
template <typename T>
T maximum(T a, T b) {
  return a != a || a > b ? a : b;
}

template <typename T>
T minimum(T a, T b) {
  return a != a || a < b ? a : b;
}

double binary(Op op, DType dtype, double a, double b) {
  switch (op) {
    case Op::add:
      return a + b;
    case Op::sub:
      return a - b;
    case Op::mul:
      return a * b;
    case Op::div:
      return a / b;
    case Op::floor_div:
      return floor_div(dtype, a, b);
    case Op::remainder:
      return remainder(a, b);
    case Op::fmod:
      return std::fmod(a, b);
    case Op::pow:
      return b == 0 || a == 1 ? 1 : std::pow(a, b);  // of signalling NaN too
    case Op::atan2:
      return std::atan2(a, b);
    case Op::hypot:
      return std::hypot(a, b);
    case Op::maximum:
      return maximum(a, b);
    case Op::minimum:
      return minimum(a, b);
    default:
      break;
  }
  throw InternalError("[" + std::string(op_name(op)) + "] is not a floating binary op");
}

// Division by zero gives 0: the engine must not trap on data.
int64_t truncating_div(int64_t a, int64_t b) {
  if (b == 0) return 0;
  if (b == -1) return wrap(0 - static_cast<uint64_t>(a));
  return a / b;
}

int64_t truncating_mod(int64_t a, int64_t b) { return b == 0 || b == -1 ? 0 : a % b; }

int64_t flooring_div(int64_t a, int64_t b) {
  const int64_t rest = truncating_mod(a, b);
  return truncating_div(a, b) - (rest != 0 && (rest < 0) != (b < 0));
}

int64_t flooring_mod(int64_t a, int64_t b) {
  const int64_t rest = truncating_mod(a, b);
  return rest != 0 && (rest < 0) != (b < 0) ? rest + b : rest;
}

// Wraps around; a negative exponent gives 0 unless the base is 1 or -1.
int64_t integer_pow(int64_t base, int64_t exponent) {
  if (exponent < 0) {
    if (base == 1) return 1;
    return base == -1 ? (exponent % 2 != 0 ? -1 : 1) : 0;
  }
  uint64_t result = 1, square = static_cast<uint64_t>(base);
  for (; exponent != 0; exponent >>= 1, square *= square) {
    if ((exponent & 1) != 0) result *= square;
  }
  return wrap(result);
}

int64_t binary(Op op, int64_t a, int64_t b) {
  const auto x = static_cast<uint64_t>(a), y = static_cast<uint64_t>(b);
  switch (op) {
    case Op::add:
      return wrap(x + y);
    case Op::sub:
      return wrap(x - y);
    case Op::mul:
      return wrap(x * y);
    case Op::div:
      return truncating_div(a, b);
    case Op::floor_div:
      return flooring_div(a, b);
    case Op::remainder:
      return flooring_mod(a, b);
    case Op::fmod:
      return truncating_mod(a, b);
    case Op::pow:
      return integer_pow(a, b);
    case Op::maximum:
      return maximum(a, b);
    case Op::minimum:
      return minimum(a, b);
    case Op::bitwise_and:
      return a & b;
    case Op::bitwise_or:
      return a | b;
    case Op::bitwise_xor:
      return a ^ b;
    default:
      break;
  }
  throw InternalError("[" + std::string(op_name(op)) + "] is not an integer binary op");
}

template <typename T>
bool compare(Op op, T a, T b) {
  switch (op) {
    case Op::eq:
      return a == b;
    case Op::ne:
      return a != b;
    case Op::lt:
      return a < b;
    case Op::le:
      return a <= b;
    case Op::gt:
      return a > b;
    default:
      return a >= b;
  }
}

bool is_comparison(Op op) { return op_info(op).kind == OpKind::Binary && gives_bool(op); }

bool predicate(Op op, const Scalar& x) {
  switch (op) {
    case Op::isnan:
      return std::isnan(x.as_double());
    case Op::isinf:
      return std::isinf(x.as_double());
    default:
      return !x.truth();
  }
}

bool is_predicate(Op op) { return op_info(op).kind == OpKind::Unary && gives_bool(op); }

}  // namespace

Scalar make_scalar(DType dtype, double value) {
  if (is_floating(dtype)) return {dtype, round_to(dtype, value), 0};
  if (dtype == DType::Bool) return {dtype, 0, value != 0};
  return {dtype, 0, to_integer(value, dtype)};
}

double held_number(DType dtype, double value) { return make_scalar(dtype, value).as_double(); }

Scalar make_scalar_int(DType dtype, int64_t value) {
  if (is_floating(dtype)) return {dtype, round_to(dtype, static_cast<double>(value)), 0};
  return {dtype, 0, wrap_to(dtype, value)};
}

int64_t to_integer(double value, DType dtype) {
  const bool is_long = dtype == DType::I64 || dtype == DType::U8;
  const double limit = is_long ? 0x1p63 : 0x1p31, whole = std::trunc(value);
  if (!(whole >= -limit && whole < limit)) {
    return wrap_to(
        dtype, is_long ? std::numeric_limits<int64_t>::min() : std::numeric_limits<int32_t>::min());
  }
  return wrap_to(dtype, static_cast<int64_t>(whole));
}

Scalar convert(const Scalar& value, DType dtype) {
  return is_floating(value.dtype) ? make_scalar(dtype, value.number)
                                  : make_scalar_int(dtype, value.integer);
}

Scalar element(const Literal& literal, int64_t index) {
  if (is_floating(literal.dtype)) return {literal.dtype, literal.as_double(index), 0};
  return {literal.dtype, 0, literal.as_int(index)};
}

void set_element(std::byte* data, int64_t index, const Scalar& value) {
  if (is_floating(value.dtype)) {
    Literal::set(data, value.dtype, index, value.number);
  } else {
    Literal::set_int(data, value.dtype, index, value.integer);
  }
}

DType result_dtype(Op op, std::span<const DType> args) {
  if (gives_bool(op)) return DType::Bool;
  return op_info(op).gives == Gives::Last ? args.back() : args.front();
}

Scalar evaluate(Op op, std::span<const Scalar> args, bool gelu_tanh) {
  const Scalar& a = args[0];
  if (op == Op::where) return a.truth() ? args[1] : args[2];
  if (is_predicate(op)) return make_scalar_int(DType::Bool, predicate(op, a));
  const bool floating = is_floating(a.dtype);
  if (op == Op::check_index || op == Op::check_nonzero) return args[0];
  if (args.size() == 1) {
    return floating ? make_scalar(a.dtype, unary(op, a.number, gelu_tanh))
                    : make_scalar_int(a.dtype, unary(op, a.integer, a.dtype));
  }
  const Scalar& b = args[1];
  if (is_comparison(op)) {
    return make_scalar_int(DType::Bool, floating ? compare(op, a.number, b.number)
                                                 : compare(op, a.integer, b.integer));
  }
  return floating ? make_scalar(a.dtype, binary(op, a.dtype, a.number, b.number))
                  : make_scalar_int(a.dtype, binary(op, a.integer, b.integer));
}

}  // namespace kiln::ir
