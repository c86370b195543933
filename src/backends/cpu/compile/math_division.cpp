// Divisions with a rest.
#include <limits>

#include "backends/cpu/compile/math.h"

namespace kiln::cpu {

using llvm::Value;

namespace {

Real to_f64(Real x) {
  if (x.is_f64()) return x;
  return x.with(
      x.ir->CreateFPExt(x.value, x.value->getType()->getWithNewType(x.ir->getDoubleTy())));
}

Real like(Real x, Real result) {
  return x.is_f64() ? result : x.with(x.ir->CreateFPTrunc(result.value, x.value->getType()));
}

// a - trunc(a / b) * b for a >= 0 and b > 0, exact where the rounded quotient has 53 bits.
Real reduce_once(Real a, Real b) {
  const Real rest = fma(-trunc(a / b), b, a);
  const Real low = select(less(rest, 0.0), rest + b, rest);
  return select(less(low, b), low, low - b);
}

Real fmod_f64(Real a, Real b) {
  const Real divisor = abs(b);
  Real rest = reduce_once(reduce_once(abs(a), divisor), divisor);
  const double infinity = std::numeric_limits<double>::infinity();
  Value* whole = a.ir->CreateAnd(equal(divisor, infinity), less(abs(a), infinity));
  rest = select(whole, abs(a), rest);
  // Quotients that are too large for that.
  rest = select(a.ir->CreateFCmpOGE(rest.value, divisor.value), 0.0, rest);
  return copysign(rest, a);
}

}  // namespace

Real emit_fmod(Real a, Real b) { return like(a, fmod_f64(to_f64(a), to_f64(b))); }

// The sign of b.
Real emit_remainder(Real a, Real b) {
  const Real divisor = to_f64(b);
  const Real rest = fmod_f64(to_f64(a), divisor);
  auto& ir = *a.ir;
  Value* differ = ir.CreateXor(less(rest, 0.0), less(divisor, 0.0));
  Value* fix = ir.CreateAnd(differ, ir.CreateFCmpONE(rest.value, rest.of(0.0).value));
  return like(a, select(fix, rest + divisor, rest));
}

// The floor of the exact quotient, while that has at most 53 bits.
Real emit_floor_div(Real a, Real b) {
  const Real x = to_f64(a), y = to_f64(b);
  const Real quotient = floor(x / y);
  const Real rest = fma(-quotient, y, x);
  Value* too_far = x.ir->CreateXor(less(rest, 0.0), less(y, 0.0));
  too_far = x.ir->CreateAnd(too_far, x.ir->CreateFCmpONE(rest.value, rest.of(0.0).value));
  return like(a, select(too_far, quotient - 1.0, quotient));
}

}  // namespace kiln::cpu
