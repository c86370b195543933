// Divisions with a rest.
#include <limits>

#include "backends/cpu/compile/math/call.h"
#include "backends/cpu/compile/math/math.h"

namespace kiln::cpu {

using llvm::Value;

namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

// a - trunc(a / b) * b for a >= 0 and b > 0, exact while a / b < 2^52: the rounded quotient is at
// most one too large.
Real reduce_once(Real a, Real b) {
  const Real rest = fma(-trunc(a / b), b, a);
  return select(less(rest, 0.0), rest + b, rest);
}

// The exponent that f64 stores, of a number x > 0; of denormal ones what would follow below.
Value* stored_exponent(Real x) {
  auto& ir = *x.ir;
  Value* subnormal = less(x, 0x1p-1022);
  const Real scaled = select(subnormal, x * 0x1p54, x);
  Value* exponent = ir.CreateLShr(scaled.bits(), 52);
  return ir.CreateSelect(subnormal, ir.CreateSub(exponent, x.integer(54)), exponent);
}

// x * 2^power, exactly, for 0 <= power < 2046 and a result in range.
Real scale_up(Real x, Value* power) {
  auto& ir = *x.ir;
  const auto power_of_two = [&](Value* exponent) {
    return x.from_bits(ir.CreateShl(ir.CreateAdd(exponent, x.integer(1023)), 52));
  };
  Value* half = ir.CreateLShr(power, 1);
  return x * power_of_two(half) * power_of_two(ir.CreateSub(power, half));
}

// |a| modulo |b| in f64. What is large against b is reduced by multiples of b * 2^k first, about 50
// bits in each round.
Real fmod_body(Real a, Real b) {
  auto& ir = *a.ir;
  const Real divisor = abs(b);
  Value* divisor_exponent = stored_exponent(divisor);
  const auto is_far = [&](const std::vector<Real>& values) {
    const Real& rest = values[0];
    Value* far = ir.CreateFCmpOGE(rest.value, (divisor * 0x1p52).value);
    Value* possible = ir.CreateAnd(greater(divisor, 0.0), less(rest, kInfinity));
    return ir.CreateAnd(far, possible);
  };
  const auto reduce = [&](const std::vector<Real>& values) {
    const Real& rest = values[0];
    Value* distance = ir.CreateSub(ir.CreateLShr(rest.bits(), 52), divisor_exponent);
    const Real multiple = scale_up(divisor, ir.CreateSub(distance, rest.integer(51)));
    return std::vector{select(is_far(values), reduce_once(rest, multiple), rest)};
  };
  const Real near = while_any({abs(a)}, is_far, reduce)[0];
  Value* whole = ir.CreateAnd(equal(divisor, kInfinity), less(near, kInfinity));
  return copysign(select(whole, near, reduce_once(near, divisor)), a);
}

}  // namespace

// Exact in every dtype, so the wider one serves all.
Real emit_fmod(Real a, Real b) {
  const Real rest =
      call_function("fmod", {to_f64(a), to_f64(b)},
                    [](const std::vector<Real>& args) { return fmod_body(args[0], args[1]); });
  return narrow_like(a, rest);
}

namespace {

// Whether a rest that is not zero has another sign than the divisor.
Value* differs_in_sign(Real rest, Real b) {
  Value* differ = rest.ir->CreateXor(less(rest, 0.0), less(b, 0.0));
  return rest.ir->CreateAnd(differ, rest.ir->CreateFCmpONE(rest.value, rest.of(0.0).value));
}

}  // namespace

// The sign of b.
Real emit_remainder(Real a, Real b) {
  const Real rest = emit_fmod(a, b);
  return select(differs_in_sign(rest, b), rest + b, rest);
}

// PyTorch's formula, step by step: from the exact rest, so that the quotient is right where a / b
// rounds up to an integer.
Real emit_floor_div(Real a, Real b) {
  auto& ir = *a.ir;
  const Real rest = emit_fmod(a, b);
  const Real quotient = (a - rest) / b;
  const Real below = select(differs_in_sign(rest, b), quotient - 1.0, quotient);
  Real floored = floor(below);
  floored = select(greater(below - floored, 0.5), floored + 1.0, floored);
  const Real plain = a / b;
  floored = select(equal(below, 0.0), copysign(a.of(0.0), plain), floored);
  return {ir, select(equal(b, 0.0), plain, floored).value};
}

}  // namespace kiln::cpu
