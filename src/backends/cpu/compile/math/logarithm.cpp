// log, its relatives, and what is made of it.
#include <cmath>
#include <limits>
#include <numbers>

#include "backends/cpu/compile/math/call.h"
#include "backends/cpu/compile/math/logarithm.h"
#include "backends/cpu/compile/math/math.h"

namespace kiln::cpu {

using llvm::Value;

namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

// log(1 + f) - f for f between sqrt(1/2) - 1 and sqrt(2) - 1.
Real log_tail(Real f) {
  if (!f.is_f64()) {
    const Real z = f * f;
    const Real cubic =
        polynomial(f, {0x1.555548p-2, -0x1.000008p-2, 0x1.99a478p-3, -0x1.555b94p-3, 0x1.233aeep-3,
                       -0x1.fc3c48p-4, 0x1.e6dbe8p-4, -0x1.dda734p-4, 0x1.13d31ap-4});
    return fma(cubic, z * f, z * -0.5);
  }
  // With s = f / (2 + f): log(1 + f) = 2 s + s^3 q(s^2), and 2 s = f - s f.
  const Real s = f / (f + 2.0);
  const Real z = s * s;
  const Real q = polynomial(
      z, {0x1.5555555555555p-1, 0x1.9999999999d13p-2, 0x1.24924924394b2p-2, 0x1.c71c724bab6b5p-3,
          0x1.745ce1b1dd7f4p-3, 0x1.3b2028a44cc3fp-3, 0x1.0f66e1ffc54adp-3, 0x1.0f117b4ee029ep-3});
  return s * fma(z, q, -f);
}

// Infinity, zeros, negative numbers and NaN.
Real finish(Real x, Real logarithm) {
  Real result = select(equal(x, kInfinity), x, logarithm);
  result = select(equal(x, 0.0), -kInfinity, result);
  return select(x.ir->CreateFCmpULT(x.value, x.of(0.0).value), std::nan(""), result);
}

// A number as the sum of two.
struct Parts {
  double high, low;
};

// log(x) * scale = power * unit + log(1 + fraction) * scale, where the second term is rounded once:
// no power of the base is missed. `unit` is log(2) * scale.
Real scaled_log_body(Real x, Parts scale, Parts unit) {
  const auto [power, f] = split_exponent(x);
  const Real tail = log_tail(f);
  const Real high = f + tail;
  const Real low = tail - (high - f);
  const Real product = high * scale.high;
  const Real rest = fma(high, scale.high, -product) + fma(high, scale.low, low * scale.high);
  return finish(x, fma(power, unit.high, fma(power, unit.low, product + rest)));
}

Real scaled_log(const char* name, Real x, Parts scale, Parts unit) {
  const Real result = call_function(name, {to_f64(x)}, [&](const std::vector<Real>& args) {
    return scaled_log_body(args[0], scale, unit);
  });
  return narrow_like(x, result);
}

// A function of |x| or x that is computed in f64, out of line.
Real in_f64(const char* name, Real x, Real (*body)(Real x)) {
  const Real result = call_function(name, {to_f64(x)},
                                    [&](const std::vector<Real>& args) { return body(args[0]); });
  return narrow_like(x, result);
}

// From here on squares are not needed, and soon would overflow.
constexpr double kLarge = 1e9;

Real log_of_double(Real x) { return emit_log(x) + std::numbers::ln2; }

// log1p(a + (sqrt(a^2 + 1) - 1)) without the cancellation.
Real asinh_body(Real x) {
  const Real a = abs(x), square = a * a;
  const Real small = emit_log1p(a + square / (sqrt(square + 1.0) + 1.0));
  return copysign(select(greater(a, kLarge), log_of_double(a), small), x);
}

// log1p(t + sqrt(t^2 + 2 t)), t = x - 1.
Real acosh_body(Real x) {
  const Real t = x - 1.0;
  const Real small = emit_log1p(t + sqrt(fma(t, t, t + t)));
  const Real result = select(greater(x, kLarge), log_of_double(x), small);
  return select(less(x, 1.0), std::nan(""), result);
}

Real atanh_body(Real x) {
  const Real a = abs(x);
  return copysign(emit_log1p((a + a) / (1.0 - a)) * 0.5, x);
}

}  // namespace

Split split_exponent(Real x) {
  auto& ir = *x.ir;
  const bool f64 = x.is_f64();
  const int shift = f64 ? 52 : 23;
  const double smallest_normal = f64 ? 0x1p-1022 : 0x1p-126;
  Value* subnormal = less(x, smallest_normal);
  const Real scaled = select(subnormal, x * (f64 ? 0x1p52 : 0x1p23), x);
  Value* bits = scaled.bits();
  Value* origin = x.integer(f64 ? 0x3fe6a09e667f3bcdULL : 0x3f3504f3U);  // sqrt(1/2)
  Value* above = ir.CreateSub(bits, origin);
  Value* power = ir.CreateAShr(above, static_cast<uint64_t>(shift));
  Value* mantissa = ir.CreateAnd(above, x.integer((uint64_t{1} << shift) - 1));
  const Real fraction = x.from_bits(ir.CreateAdd(mantissa, origin)) - 1.0;
  const Real exponent = x.with(ir.CreateSIToFP(power, x.value->getType()));
  return {select(subnormal, exponent - static_cast<double>(shift), exponent), fraction};
}

Real emit_log(Real x) {
  const double high = x.is_f64() ? 0x1.62e42fefa39efp-1 : 0x1.62e43p-1;
  const double low = x.is_f64() ? 0x1.abc9e3b39803fp-56 : -0x1.05c61p-29;
  const auto [power, f] = split_exponent(x);
  return finish(x, fma(power, high, f + fma(power, low, log_tail(f))));
}

// log(u) + (what rounding 1 + x to u lost) / u.
Real emit_log1p(Real x) {
  const Real u = x + 1.0;
  const Real lost = x - (u - 1.0);
  Value* ordinary = x.ir->CreateAnd(greater(u, 0.0), less(u, kInfinity));
  const Real correction = select(ordinary, lost / u, x.of(0.0));
  const Real result = emit_log(u) + correction;
  return select(equal(x, 0.0), x, result);
}

Real emit_log2(Real x) {
  return scaled_log("log2", x, {0x1.71547652b82fep+0, 0x1.777d0ffda0d24p-56}, {1.0, 0.0});
}

Real emit_log10(Real x) {
  return scaled_log("log10", x, {0x1.bcb7b1526e50ep-2, 0x1.95355baaafad3p-57},
                    {0x1.34413509f7800p-2, 0x1.fef311f12b358p-46});
}

Real emit_asinh(Real x) { return in_f64("asinh", x, asinh_body); }
Real emit_acosh(Real x) { return in_f64("acosh", x, acosh_body); }
Real emit_atanh(Real x) { return in_f64("atanh", x, atanh_body); }

}  // namespace kiln::cpu
