// Unary, binary and ternary ops: in double for floats, in int64 for integers.
#include <algorithm>
#include <cmath>
#include <limits>

#include "backends/reference/array.h"
#include "support/error.h"

namespace kiln::reference {
namespace {

using ir::Op;

double sign(double x) { return std::isnan(x) ? x : static_cast<double>((x > 0) - (x < 0)); }
double sigmoid(double x) { return 1 / (1 + std::exp(-x)); }

double gelu(double x, bool tanh_form) {
  if (!tanh_form) return 0.5 * x * (1 + std::erf(x / std::sqrt(2.0)));
  const double inner = std::sqrt(2 / M_PI) * (x + 0.044715 * x * x * x);
  return 0.5 * x * (1 + std::tanh(inner));
}

double unary_float(const ir::Node& node, double x) {
  switch (node.op) {
    case Op::neg:
      return -x;
    case Op::abs:
      return std::fabs(x);
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
      return x < 0 ? 0 : x;  // NaN stays NaN
    case Op::silu:
      return x * sigmoid(x);
    case Op::gelu:
      return gelu(x, node.attr<std::string>("approximate") == "tanh");
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
  throw InternalError("[" + std::string(ir::op_name(node.op)) + "] no floating reference");
}

int64_t unary_int(const ir::Node& node, int64_t x, bool is_bool) {
  switch (node.op) {
    case Op::neg:
      return static_cast<int64_t>(0 - static_cast<uint64_t>(x));
    case Op::abs:
      return x < 0 ? static_cast<int64_t>(0 - static_cast<uint64_t>(x)) : x;
    case Op::sign:
      return (x > 0) - (x < 0);
    case Op::relu:
      return std::max<int64_t>(x, 0);
    case Op::floor:
    case Op::ceil:
    case Op::round:
    case Op::trunc:
      return x;
    case Op::bitwise_not:
      return is_bool ? x == 0 : ~x;
    default:
      break;
  }
  throw InternalError("[" + std::string(ir::op_name(node.op)) + "] no integer reference");
}

void cast_element(Array& result, int64_t i, const Array& x) {
  if (result.dtype == DType::Bool) {
    result.set_int(i, x.as_double(i) != 0);  // NaN is true
  } else if (x.floating() == result.floating()) {
    if (x.floating()) {
      result.set(i, x.as_double(i));
    } else {
      result.set_int(i, x.as_int(i));
    }
  } else if (x.floating()) {
    const double value = std::trunc(x.as_double(i));
    // Out of range is undefined in C++ and unspecified in PyTorch; x86 gives the smallest integer.
    const bool fits = value >= -0x1p63 && value < 0x1p63;
    result.set_int(i, fits ? static_cast<int64_t>(value) : std::numeric_limits<int64_t>::min());
  } else {
    result.set(i, x.as_double(i));
  }
}

double fmod_like_sign_of(double a, double b) {
  const double r = std::fmod(a, b);
  return (r != 0 && (r < 0) != (b < 0)) ? r + b : r;
}

double binary_float(Op op, double a, double b) {
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
      return std::floor(a / b);
    case Op::remainder:
      return fmod_like_sign_of(a, b);
    case Op::fmod:
      return std::fmod(a, b);
    case Op::pow:
      return std::pow(a, b);
    case Op::atan2:
      return std::atan2(a, b);
    case Op::maximum:
      return std::isnan(a) || std::isnan(b) ? NAN : std::max(a, b);
    case Op::minimum:
      return std::isnan(a) || std::isnan(b) ? NAN : std::min(a, b);
    default:
      break;
  }
  throw InternalError("[" + std::string(ir::op_name(op)) + "] no floating reference");
}

int64_t power(int64_t base, int64_t exponent) {
  if (exponent < 0) return base == 1 ? 1 : base == -1 ? (exponent % 2 == 0 ? 1 : -1) : 0;
  uint64_t result = 1;
  for (auto b = static_cast<uint64_t>(base); exponent > 0; exponent >>= 1, b *= b) {
    if (exponent & 1) result *= b;
  }
  return static_cast<int64_t>(result);
}

// Division by zero gives 0 and the overflowing quotient wraps: an engine must not trap.
int64_t divide(Op op, int64_t a, int64_t b) {
  if (b == 0) return 0;
  if (b == -1)
    return op == Op::fmod || op == Op::remainder
               ? 0
               : static_cast<int64_t>(0 - static_cast<uint64_t>(a));
  const int64_t quotient = a / b, rest = a % b;
  const bool adjust = rest != 0 && (rest < 0) != (b < 0);
  switch (op) {
    case Op::div:
      return quotient;
    case Op::fmod:
      return rest;
    case Op::floor_div:
      return adjust ? quotient - 1 : quotient;
    default:
      return adjust ? rest + b : rest;
  }
}

int64_t binary_int(Op op, int64_t a, int64_t b, bool is_bool) {
  const auto ua = static_cast<uint64_t>(a), ub = static_cast<uint64_t>(b);
  switch (op) {
    case Op::add:
      return is_bool ? (a | b) : static_cast<int64_t>(ua + ub);
    case Op::sub:
      return static_cast<int64_t>(ua - ub);
    case Op::mul:
      return is_bool ? (a & b) : static_cast<int64_t>(ua * ub);
    case Op::div:
    case Op::floor_div:
    case Op::remainder:
    case Op::fmod:
      return divide(op, a, b);
    case Op::pow:
      return power(a, b);
    case Op::maximum:
      return std::max(a, b);
    case Op::minimum:
      return std::min(a, b);
    case Op::bitwise_and:
      return a & b;
    case Op::bitwise_or:
      return a | b;
    case Op::bitwise_xor:
      return a ^ b;
    default:
      break;
  }
  throw InternalError("[" + std::string(ir::op_name(op)) + "] no integer reference");
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

bool is_comparison(Op op) { return op >= Op::eq && op <= Op::ge; }

}  // namespace

Array evaluate_unary(const Call& call) {
  const Array& x = call.operand(0);
  Array result = call.result();
  const Op op = call.node.op;
  for (int64_t i = 0; i < result.elements(); ++i) {
    if (op == Op::cast) {
      cast_element(result, i, x);
    } else if (op == Op::isnan) {
      result.set_int(i, std::isnan(x.as_double(i)));
    } else if (op == Op::isinf) {
      result.set_int(i, std::isinf(x.as_double(i)));
    } else if (op == Op::logical_not) {
      result.set_int(i, x.as_double(i) == 0);
    } else if (x.floating()) {
      result.set(i, unary_float(call.node, x.as_double(i)));
    } else {
      result.set_int(i, unary_int(call.node, x.as_int(i), x.dtype == DType::Bool));
    }
  }
  return result;
}

Array evaluate_binary(const Call& call) {
  const Array &a = call.operand(0), &b = call.operand(1);
  Array result = call.result();
  const Op op = call.node.op;
  for_each_index(result.shape, [&](const Sizes& index, int64_t i) {
    const int64_t at_a = broadcast_offset(index, a.shape), at_b = broadcast_offset(index, b.shape);
    if (is_comparison(op)) {
      result.set_int(i, a.floating() ? compare(op, a.as_double(at_a), b.as_double(at_b))
                                     : compare(op, a.as_int(at_a), b.as_int(at_b)));
    } else if (a.floating()) {
      result.set(i, binary_float(op, a.as_double(at_a), b.as_double(at_b)));
    } else {
      result.set_int(i, binary_int(op, a.as_int(at_a), b.as_int(at_b), a.dtype == DType::Bool));
    }
  });
  return result;
}

Array evaluate_where(const Call& call) {
  const Array& condition = call.operand(0);
  Array result = call.result();
  for_each_index(result.shape, [&](const Sizes& index, int64_t i) {
    const bool chosen = condition.as_int(broadcast_offset(index, condition.shape)) != 0;
    const Array& source = call.operand(chosen ? 1 : 2);
    result.copy_element(i, source, broadcast_offset(index, source.shape));
  });
  return result;
}

}  // namespace kiln::reference
