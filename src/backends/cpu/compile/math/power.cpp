// pow and hypot.
#include <cmath>
#include <limits>

#include "backends/cpu/compile/math/call.h"
#include "backends/cpu/compile/math/logarithm.h"
#include "backends/cpu/compile/math/math.h"

namespace kiln::cpu {

using llvm::Value;

namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

// The sum of both, with about twice the digits of one.
struct Pair {
  Real high, low;
};

// a + b, for |a| >= |b| or a = 0.
Pair sum(Real a, Real b) {
  const Real high = a + b;
  return {high, b - (high - a)};
}

Pair product(Pair a, Pair b) {
  const Real high = a.high * b.high;
  return {high, fma(a.high, b.high, -high) + fma(a.high, b.low, a.low * b.high)};
}

// log(1 + f) = 2 s (1 + z (1/3 + z q(z))) with s = f / (2 + f), z = s^2. All but q in pairs.
Pair log_of_fraction(Real f) {
  const Pair divisor = sum(f.of(2.0), f);
  const Real s = f / divisor.high;
  const Real s_low = fma(-s, divisor.low, fma(-s, divisor.high, f)) / divisor.high;
  const Pair z = product({s, s_low}, {s, s_low});
  const Real q =
      polynomial(z.high, {0x1.999999999999ap-3, 0x1.249249249252cp-3, 0x1.c71c71c6e78a1p-4,
                          0x1.745d177d4ef6cp-4, 0x1.3b1394b0a7753p-4, 0x1.11190514d902bp-4,
                          0x1.df700c050c69dp-5, 0x1.e0b2fadc317e7p-5});
  const Pair third = sum(f.of(0x1.5555555555555p-2), fma(z.high, q, f.of(0x1.5555555555555p-56)));
  const Pair correction = product({s, s_low}, product(z, third));
  const Pair half = sum(s, correction.high);
  const Real low = half.low + (s_low + correction.low);
  return {half.high + half.high, low + low};
}

// log(a) to about 65 bits, for a >= 0 in f64.
Pair long_log(Real a) {
  const auto [power, f] = split_exponent(a);
  const Pair fraction = log_of_fraction(f);
  // The high part of ln 2 has 42 bits, so that its product is exact.
  const Pair total = sum(power * 0x1.62e42fefa3800p-1, fraction.high);
  return {total.high, total.low + fma(power, 0x1.ef35793c76730p-45, fraction.low)};
}

// a^b for a >= 0, in f64. A relative error of log(a) grows by the exponent, so it is a pair.
Real power_body(Real a, Real b) {
  const Pair logarithm = long_log(a);
  Real high = select(equal(a, 0.0), -kInfinity, logarithm.high);
  high = select(a.ir->CreateFCmpUGE(a.value, a.of(kInfinity).value), a, high);
  const Real exponent = b * high;
  const Real low = fma(b, high, -exponent) + b * logarithm.low;
  const Real inside = at_most(at_least(exponent, -746.0), 712.0);
  return emit_exp(inside, select(less(abs(exponent), 1e4), low, b.of(0.0)));
}

// f64 hides the error of log(a) where the result is f32.
Real power_of_magnitude(Real a, Real b, bool f64) {
  if (!f64) return emit_exp(b * emit_log(a));
  return call_function("pow", {a, b},
                       [](const std::vector<Real>& args) { return power_body(args[0], args[1]); });
}

Real hypot_body(Real a, Real b, bool may_overflow) {
  const Real x = abs(a), y = abs(b);
  const auto root = [](Real p, Real q) { return sqrt(fma(p, p, q * q)); };
  if (!may_overflow) return root(x, y);
  const Real larger = select(greater(x, y), x, y);
  const auto by_size = [&](double large, double small) {
    return select(greater(larger, 0x1p500), large,
                  select(less(larger, 0x1p-500), small, x.of(1.0)));
  };
  const Real factor = by_size(0x1p-600, 0x1p600);
  return root(x * factor, y * factor) * by_size(0x1p600, 0x1p-600);
}

}  // namespace

Real emit_pow(Real base, Real exponent) {
  auto& ir = *base.ir;
  const Real a = to_f64(base), b = to_f64(exponent);
  Real result = power_of_magnitude(abs(a), b, base.is_f64());
  Value* integer = equal(trunc(b), b);
  const Real half = b * 0.5;
  Value* odd = ir.CreateAnd(integer, unequal(trunc(half), half));
  Value* negative = less(copysign(a.of(1.0), a), 0.0);
  result = select(ir.CreateAnd(negative, odd), -result, result);
  Value* finite_negative = ir.CreateAnd(less(a, 0.0), greater(a, -kInfinity));
  result = select(ir.CreateAnd(finite_negative, ir.CreateNot(integer)), std::nan(""), result);
  Value* is_one = ir.CreateOr(equal(b, 0.0), equal(a, 1.0));
  is_one = ir.CreateOr(is_one, ir.CreateAnd(equal(a, -1.0), equal(abs(b), kInfinity)));
  return narrow_like(base, select(is_one, 1.0, result));
}

// Infinite where an operand is, even if the other is NaN.
Real emit_hypot(Real a, Real b) {
  const bool f64 = a.is_f64();
  const Real length = narrow_like(a, hypot_body(to_f64(a), to_f64(b), f64));
  Value* infinite = a.ir->CreateOr(equal(abs(a), kInfinity), equal(abs(b), kInfinity));
  return select(infinite, kInfinity, length);
}

}  // namespace kiln::cpu
