#include "ir/dim_ops.h"

namespace kiln::ir {
namespace {

std::optional<bool> decide_less(const Dim& a, const Dim& b) {
  if (provably_less(a, b)) return true;
  if (provably_less_equal(b, a)) return false;
  return std::nullopt;
}

std::optional<bool> decide_equal(const Dim& a, const Dim& b) {
  if (provably_equal(a, b)) return true;
  if (provably_less(a, b) || provably_less(b, a)) return false;
  return std::nullopt;
}

std::optional<bool> negate(std::optional<bool> x) {
  return x ? std::optional<bool>(!*x) : std::nullopt;
}

}  // namespace

std::optional<bool> decide(Op op, const Dim& a, const Dim& b) {
  switch (op) {
    case Op::lt:
      return decide_less(a, b);
    case Op::gt:
      return decide_less(b, a);
    case Op::ge:
      return negate(decide_less(a, b));
    case Op::le:
      return negate(decide_less(b, a));
    case Op::eq:
      return decide_equal(a, b);
    case Op::ne:
      return negate(decide_equal(a, b));
    default:
      return std::nullopt;
  }
}

std::optional<Dim> combine(Op op, const Dim& a, const Dim& b) {
  const bool rounds_down = b.lower_bound() >= 1;
  // Rounding down is rounding to zero where nothing is negative.
  const bool rounds_to_zero = rounds_down && a.lower_bound() >= 0;
  switch (op) {
    case Op::add:
      return a + b;
    case Op::sub:
      return a - b;
    case Op::mul:
      return a * b;
    case Op::maximum:
      return max(a, b);
    case Op::minimum:
      return min(a, b);
    case Op::floor_div:
      return rounds_down ? std::optional(floordiv(a, b)) : std::nullopt;
    case Op::remainder:
      return rounds_down ? std::optional(mod(a, b)) : std::nullopt;
    case Op::div:
      return rounds_to_zero ? std::optional(floordiv(a, b)) : std::nullopt;
    case Op::fmod:
      return rounds_to_zero ? std::optional(mod(a, b)) : std::nullopt;
    default:
      return std::nullopt;
  }
}

}  // namespace kiln::ir
