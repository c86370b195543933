// Ops that are applied element by element.
#include <cmath>
#include <numbers>

#include "backends/reference/tensor.h"
#include "ir/op_table.h"
#include "support/error.h"

namespace kiln::reference {
namespace {

using ir::Op;

double gelu(double x) { return 0.5 * x * (1 + std::erf(x * std::numbers::sqrt2 / 2)); }

double gelu_tanh(double x) {
  const double inner = std::sqrt(2 / std::numbers::pi) * (x + 0.044715 * x * x * x);
  return 0.5 * x * (1 + std::tanh(inner));
}

double sigmoid(double x) { return 1 / (1 + std::exp(-x)); }

double sign(double x) {
  return std::isnan(x) ? x : static_cast<double>(x > 0) - static_cast<double>(x < 0);
}

double unary(const Call& call, double x) {
  switch (call.node.op) {
    case Op::neg:
      return -x;
    case Op::abs:
      return std::abs(x);
    case Op::sign:
      return sign(x);
    case Op::exp:
      return std::exp(x);
    case Op::expm1:
      return std::expm1(x);
    case Op::log:
      return std::log(x);
    case Op::log1p:
      return std::log1p(x);
    case Op::sqrt:
      return std::sqrt(x);
    case Op::rsqrt:
      return 1 / std::sqrt(x);
    case Op::reciprocal:
      return 1 / x;
    case Op::sin:
      return std::sin(x);
    case Op::cos:
      return std::cos(x);
    case Op::tanh:
      return std::tanh(x);
    case Op::erf:
      return std::erf(x);
    case Op::sigmoid:
      return sigmoid(x);
    case Op::relu:
      return x < 0 ? 0 : x;
    case Op::silu:
      return x * sigmoid(x);
    case Op::gelu:
      return call.text("approximate") == "tanh" ? gelu_tanh(x) : gelu(x);
    case Op::floor:
      return std::floor(x);
    case Op::ceil:
      return std::ceil(x);
    case Op::round:
      return std::nearbyint(x);
    case Op::trunc:
      return std::trunc(x);
    case Op::isnan:
      return std::isnan(x);
    case Op::isinf:
      return std::isinf(x);
    case Op::logical_not:
      return x == 0;
    case Op::cast:
      return x;
    default:
      KILN_CHECK(false, "no floating " + std::string(ir::op_name(call.node.op)));
  }
  return 0;
}

// Two's complement: overflow wraps, as the narrower types do when they are stored.
int64_t wrap(uint64_t value) { return static_cast<int64_t>(value); }

int64_t unary(const Call& call, int64_t x) {
  switch (call.node.op) {
    case Op::neg:
      return wrap(-static_cast<uint64_t>(x));
    case Op::abs:
      return x < 0 ? wrap(-static_cast<uint64_t>(x)) : x;
    case Op::sign:
      return (x > 0) - (x < 0);
    case Op::relu:
      return x < 0 ? 0 : x;
    case Op::logical_not:
      return x == 0;
    case Op::bitwise_not:
      return call.dtype() == DType::Bool ? static_cast<int64_t>(x == 0) : ~x;
    case Op::isnan:
    case Op::isinf:
      return 0;
    case Op::floor:
    case Op::ceil:
    case Op::round:
    case Op::trunc:
    case Op::cast:
      return x;
    default:
      KILN_CHECK(false, "no integer " + std::string(ir::op_name(call.node.op)));
  }
  return 0;
}

double remainder(double a, double b) {
  const double result = std::fmod(a, b);
  return result != 0 && (result < 0) != (b < 0) ? result + b : result;
}

// From the exact remainder, so that the quotient is right where a / b rounds up to an integer.
double floor_div(double a, double b) {
  if (b == 0) return a / b;
  const double quotient = (a - remainder(a, b)) / b;
  return std::isnan(quotient) ? quotient : std::nearbyint(quotient);
}

template <typename T>
T maximum(T a, T b) {
  return a != a || a > b ? a : b;
}

template <typename T>
T minimum(T a, T b) {
  return a != a || a < b ? a : b;
}

double binary(Op op, double a, double b) {
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
      return floor_div(a, b);
    case Op::remainder:
      return remainder(a, b);
    case Op::fmod:
      return std::fmod(a, b);
    case Op::pow:
      return std::pow(a, b);
    case Op::atan2:
      return std::atan2(a, b);
    default:
      KILN_CHECK(false, "no floating " + std::string(ir::op_name(op)));
  }
  return 0;
}

// PyTorch raises for a zero divisor, machine code may not: the result is 0 here.
int64_t divide(int64_t a, int64_t b) {
  if (b == 0) return 0;
  return b == -1 ? wrap(-static_cast<uint64_t>(a)) : a / b;
}

int64_t integer_fmod(int64_t a, int64_t b) { return b == 0 || b == -1 ? 0 : a % b; }

int64_t integer_remainder(int64_t a, int64_t b) {
  const int64_t result = integer_fmod(a, b);
  return result != 0 && (result < 0) != (b < 0) ? result + b : result;
}

int64_t integer_floor_div(int64_t a, int64_t b) {
  const int64_t quotient = divide(a, b);
  return integer_fmod(a, b) != 0 && (a < 0) != (b < 0) ? quotient - 1 : quotient;
}

int64_t integer_power(int64_t base, int64_t exponent) {
  if (exponent < 0) return base == 1 ? 1 : base == -1 ? (exponent % 2 == 0 ? 1 : -1) : 0;
  uint64_t result = 1, square = static_cast<uint64_t>(base);
  for (; exponent > 0; exponent >>= 1) {
    if (exponent & 1) result *= square;
    square *= square;
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
      return divide(a, b);
    case Op::floor_div:
      return integer_floor_div(a, b);
    case Op::remainder:
      return integer_remainder(a, b);
    case Op::fmod:
      return integer_fmod(a, b);
    case Op::pow:
      return integer_power(a, b);
    case Op::bitwise_and:
      return a & b;
    case Op::bitwise_or:
      return a | b;
    case Op::bitwise_xor:
      return a ^ b;
    default:
      KILN_CHECK(false, "no integer " + std::string(ir::op_name(op)));
  }
  return 0;
}

template <typename T>
T either(Op op, T a, T b) {
  switch (op) {
    case Op::maximum:
      return maximum(a, b);
    case Op::minimum:
      return minimum(a, b);
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
    case Op::ge:
      return a >= b;
    default:
      return binary(op, a, b);
  }
}

template <typename T>
Literal apply_unary(const Call& call, DType result) {
  std::vector<T> values = load<T>(call.input(0));
  for (T& value : values) value = unary(call, value);
  return store(values, result, call.shape(0));
}

template <typename T>
Literal apply_binary(const Call& call, DType result) {
  const Sizes shape = broadcast(call.shape(0), call.shape(1));
  const std::vector<T> a = load<T>(call.input(0)), b = load<T>(call.input(1));
  Walk at_a(shape, broadcast_strides(call.shape(0), shape)),
      at_b(shape, broadcast_strides(call.shape(1), shape));
  std::vector<T> values(product(shape));
  for (T& value : values) {
    value = either(call.node.op, a[at_a.offset()], b[at_b.offset()]);
    at_a.next();
    at_b.next();
  }
  return store(values, result, shape);
}

}  // namespace

Literal evaluate_unary(const Call& call) {
  DType result = ir::gives_bool(call.node.op) ? DType::Bool : call.dtype();
  if (call.node.op == Op::cast) result = call.node.attr<DType>("dtype");
  return is_floating(call.dtype()) ? apply_unary<double>(call, result)
                                   : apply_unary<int64_t>(call, result);
}

Literal evaluate_binary(const Call& call) {
  const DType result = ir::gives_bool(call.node.op) ? DType::Bool : call.dtype();
  return is_floating(call.dtype()) ? apply_binary<double>(call, result)
                                   : apply_binary<int64_t>(call, result);
}

Literal evaluate_where(const Call& call) {
  const Sizes shape = broadcast(call.shape(0), broadcast(call.shape(1), call.shape(2)));
  const std::vector<int64_t> condition = load<int64_t>(call.input(0));
  Walk at(shape, broadcast_strides(call.shape(0), shape));
  std::vector<bool> chosen(product(shape));
  for (size_t i = 0; i < chosen.size(); ++i, at.next()) chosen[i] = condition[at.offset()] != 0;

  // Both branches in the broadcast shape, then element by element.
  const auto expanded = [&](size_t i) {
    const Sizes strides = broadcast_strides(call.shape(i), shape);
    return rearrange(call.input(i), shape, [&](const Sizes& index) {
      int64_t offset = 0;
      for (size_t d = 0; d < index.size(); ++d) offset += index[d] * strides[d];
      return offset;
    });
  };
  const Literal a = expanded(1), b = expanded(2);
  const size_t item = dtype_size(a.dtype);
  std::byte* data = nullptr;
  Literal result = Literal::allocate(a.dtype, shape, &data);
  for (size_t i = 0; i < chosen.size(); ++i) {
    const Literal& source = chosen[i] ? a : b;
    std::copy_n(source.bytes.data() + i * item, item, data + i * item);
  }
  return result;
}

}  // namespace kiln::reference
