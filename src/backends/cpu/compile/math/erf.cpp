// The error function, its complement, and GELU.
#include <numbers>

#include "backends/cpu/compile/math/call.h"
#include "backends/cpu/compile/math/math.h"

namespace kiln::cpu {

using llvm::Value;

namespace {

// Beyond it the normal distribution has a share of less than 1e-36, which is taken as 0 for results of 16 bits.
constexpr double kRoughLimit = 12.75;

// erf(x) = x p(x^2) for |x| < 1.
Real erf_small(Real x) {
  const Real z = x * x;
  if (x.is_f64()) {
    return x * polynomial(z, {0x1.20dd750429b6dp+0, -0x1.812746b03799ap-2, 0x1.ce2f21a03f3e9p-4,
                              -0x1.b82ce311879ecp-6, 0x1.565bcce826650p-8, -0x1.c02dad429c637p-11,
                              0x1.f9a265b9ecb75p-14, -0x1.f4c41217c9aefp-17, 0x1.b931a426904e5p-20,
                              -0x1.597e8b1d4e80ap-23, 0x1.bc6c93844cd7dp-27, -0x1.0a25102241654p-31,
                              -0x1.ac252eef3ba28p-35});
  }
  return x * polynomial(z, {0x1.20dd74p+0, -0x1.812630p-2, 0x1.cdfd4ep-4, -0x1.b4dd88p-6,
                            0x1.3c7280p-8, -0x1.fcff56p-12, -0x1.acce18p-16});
}

// erf(x) = 1 - exp(-q(x)) for x >= 1.
Real erf_large(Real x) {
  if (x.is_f64()) {
    const Real u = fma(at_most(x, 6.0), 0x1.999999999999ap-2, x.of(-0x1.6666666666666p+0));
    const Real q =
        polynomial(u, {0x1.c3991652a25b8p+3,   0x1.22a4dc1adc4dep+4,   0x1.82b38347386c6p+2,
                       0x1.4e712f28c7612p-4,   -0x1.179477472679dp-5,  0x1.d75a5c7068682p-7,
                       -0x1.862e3bb0f074ep-8,  0x1.372b86bf3f338p-9,   -0x1.d48f10a8d4d97p-11,
                       0x1.41da8bf02785cp-12,  -0x1.84798a90f5763p-14, 0x1.3c2331439d28ep-16,
                       0x1.50f8180c4cd7dp-17,  0x1.ba51cb86f74a9p-17,  0x1.128e2c953590cp-16,
                       -0x1.e92de764ad141p-17, -0x1.5348fcec64175p-15, -0x1.977a6c36b6339p-15,
                       -0x1.0980fd46738e3p-15, -0x1.911c943e2ae70p-17, -0x1.12589c3995b28p-19});
    return 1.0 - emit_exp(-q);
  }
  const Real q = polynomial(at_most(x, 3.92),
                            {-0x1.8b0faap-13, 0x1.212c26p+0, 0x1.44350cp-1, 0x1.bc17dcp-4,
                             -0x1.9d094ep-6, 0x1.1394fep-8, -0x1.cedd36p-12, 0x1.6bf2e0p-16});
  return 1.0 - emit_exp(-q);
}

// q * p(t) with q = 4 / (x + 4) and t = (x - 4) / (x + 4), for x >= 0; `first` is p's coefficient
// of t^0, `others` are the rest. What roundings of q and of the last step lose is added at the end.
Real by_quotient(Real x, double first, std::initializer_list<double> others) {
  const Real divisor = fma(x, 0.25, x.of(1.0));
  const Real divisor_low = fma(x, 0.25, 1.0 - divisor);
  const Real q = 1.0 / divisor;
  const Real q_lost = fma(-q, divisor_low, fma(-q, divisor, 1.0));  // relative to q
  const Real t = fma(q, -2.0, x.of(1.0));
  const Real slope = polynomial(t, others);
  const Real value = fma(slope, t, first);
  const Real lost = fma(slope, t, x.of(first) - value);
  // About 1.3 times the slope is the derivative; t moves by -2 q q_lost.
  const Real low = fma(fma(q * slope, -2.6, value), q_lost, lost);
  return fma(q, value, q * low);
}

// e^(x^2) erfc(x) for 0.4 <= x <= 28, in f64.
Real scaled_erfc(Real x) {
  const Real near =
      polynomial(x - 1.25, {0x1.78a692138767ap-2,   -0x1.abaacdbfa8b07p-3,  0x1.b56f45eef7e56p-4,
                            -0x1.9b635ac624a64p-5,  0x1.68a25a664214bp-6,   -0x1.299636d6c9c60p-7,
                            0x1.d1b695aa9d4cfp-9,   -0x1.5b8bc94a105d6p-10, 0x1.f0fe6fc49f7d9p-12,
                            -0x1.55c07dd1c8443p-13, 0x1.c570317570a5cp-15,  -0x1.22fc22742560ep-16,
                            0x1.6a197681471eep-18,  -0x1.b5c282e02eed5p-20, 0x1.016927b5cd339p-21,
                            -0x1.26e693253d345p-23, 0x1.4d2ac54f0de44p-25,  -0x1.6e6de3dfb1170p-27,
                            0x1.4ea9478c9da32p-29,  -0x1.8fb83167a7fe4p-31, 0x1.acfbd31e2583ap-32});
  const Real far =
      by_quotient(x, 0x1.18932bf08e154p-2,
                  {-0x1.f3fe31ecb49bfp-3,  0x1.8be202d26c706p-3,   -0x1.14eacb1ad0344p-3,
                   0x1.52cac23710126p-4,   -0x1.645fd8a4bbbf2p-5,  0x1.38dbd2c8e44b0p-6,
                   -0x1.b00c052c641fap-8,  0x1.908f47216bf4bp-10,  -0x1.269b51b03e503p-14,
                   -0x1.dd2843188b2c6p-14, 0x1.72cda237225ccp-15,  -0x1.e7f096be0f1d6p-21,
                   -0x1.3c6e22c5c38bfp-18, 0x1.3b19bb2b63951p-20,  0x1.7e326d086830ap-22,
                   -0x1.c7809ce1da6efp-23, -0x1.4228734a4bb60p-26, 0x1.11df27f95e2a4p-25,
                   0x1.3aeaedbde66d0p-33,  -0x1.3d291a4a06786p-28, 0x1.ee3d500cc2969p-37,
                   0x1.36d085061d3bcp-31,  0x1.27530a9b40315p-35,  -0x1.e7c15e8df92e2p-36});
  return select(less(x, 1.9), near, far);
}

// The square with the digits that rounding it loses: e^(x^2) feels them.
struct Square {
  Real high, low;
};

Square square(Real x) {
  const Real high = x * x;
  return {high, fma(x, x, -high)};
}

// A tail as power * factor, where the product may be denormal and the power is not. `power` is
// e^(-x^2); close to zero the tail is 1 - erf(x).
struct Tail {
  Real power, factor;
};

Tail complement(Real power, Real x) {
  Value* small = less(x, 0.4);
  return {select(small, 1.0, power), select(small, 1.0 - erf_small(x), scaled_erfc(x))};
}

Real erfc_body(Real x) {
  const Real a = at_most(abs(x), 28.0);
  const auto [high, low] = square(a);
  const auto [power, factor] = complement(emit_exp(-high, -low), a);
  const Real tail = power * factor;
  return select(less(x, 0.0), 2.0 - tail, tail);
}

// e^(x^2 / 2) erfc(x / sqrt(2)) / 2 for 0 <= x <= 14.5, in f32.
Real scaled_normal_tail(Real x) {
  return by_quotient(
      x, 0x1.82b4bcp-3,
      {-0x1.373e3cp-3, 0x1.8c6dbep-4, -0x1.7dfee2p-5, 0x1.eec64ep-7, -0x1.ee7c98p-10,
       -0x1.c93064p-11, 0x1.af9108p-12, 0x1.632a04p-15, -0x1.ec099ap-15, -0x1.b99facp-17});
}

// The share of the normal distribution beyond x >= 0.
Tail normal_tail(Real x) {
  const auto [high, low] = square(x);
  const Real power = emit_exp(high * -0.5, low * -0.5);
  if (!x.is_f64()) return {power, scaled_normal_tail(x)};
  const Tail tail = complement(power, x * (std::numbers::sqrt2 / 2));
  return {tail.power, tail.factor * 0.5};
}

// x times the normal distribution's share below x. Its tail has full relative accuracy.
Real gelu_exact(Real x) {
  const Real below = at_most(x, x.is_f64() ? 39.5 : 14.5);
  const auto [power, factor] = normal_tail(at_most(abs(x), x.is_f64() ? 39.5 : 14.5));
  const Real tail = below * power * factor;
  return select(x.ir->CreateFCmpOLE(x.value, x.of(0.0).value), tail, x - tail);
}

// x / 2 * (1 + tanh(u)) = x / (1 + 2^y), y = x (c + d x^2). What roundings of y lose is added to
// its end, since an absolute error of y is a relative one of the result.
Real gelu_tanh(Real x) {
  const bool f64 = x.is_f64();
  const double c = f64 ? -0x1.26aec21bce740p+1 : -0x1.26aecp+1;
  const double d = f64 ? -0x1.a5a7cf7572a98p-4 : -0x1.a5a7dp-4;
  const double c_low = f64 ? -0x1.94bb4a166d0c5p-47 : -0x1.0de73ap-22;
  const double d_low = f64 ? 0x1.b91c940e4cfcfp-58 : 0x1.151aaep-29;
  const double bound = f64 ? 24 : 12;
  const Real a = at_most(at_least(x, -bound), bound);
  const auto [high, low] = square(a);
  const Real slope = fma(high, d, a.of(c));
  Real lost = fma(high, d, a.of(c) - slope);
  lost = lost + fma(low, d, fma(high, d_low, a.of(c_low)));
  const Real y = a * slope;
  return x / (emit_exp2(y, fma(a, lost, fma(a, slope, -y))) + 1.0);
}

// -log2 of the normal distribution's share beyond a, less what a^2 / 2 makes of it, for 0 <= a <= 12.75.
Real rough_tail_exponent(Real a) {
  const Real u = fma(a, 2 / kRoughLimit, a.of(-1.0));
  return polynomial(u, {0x1.02076cp+2, 0x1.610e86p+0, -0x1.436c98p-1, 0x1.7caf30p-2, -0x1.f17d06p-3,
                        0x1.3e8662p-3, -0x1.4c340cp-4, 0x1.e50d2ep-5, -0x1.1218a4p-4, 0x1.35fc1ap-5,
                        -0x1.705f36p-8});
}

// As gelu_exact: one power instead of a power and a quotient.
Real rough_gelu(Real x) {
  const Real magnitude = abs(x);
  const Real a = at_most(magnitude, kRoughLimit);
  const Real exponent = fma(a * a, -std::numbers::log2e / 2, -rough_tail_exponent(a));
  const Real share = select(greater(magnitude, kRoughLimit), 0.0, emit_rough_exp2(exponent));
  const Real tail = at_most(x, kRoughLimit) * share;
  return select(x.ir->CreateFCmpOLE(x.value, x.of(0.0).value), tail, x - tail);
}

// As gelu_tanh, without what roundings lose.
Real rough_gelu_tanh(Real x) {
  const Real a = at_most(at_least(x, -12.0), 9.875);
  const Real y = a * fma(a * a, -0x1.a5a7cfp-4, a.of(-0x1.26aec2p+1));
  return x / (emit_rough_exp2(y) + 1.0);
}

}  // namespace

Real emit_gelu_for_16_bits(Real x, bool tanh_form) {
  return tanh_form ? rough_gelu_tanh(x) : rough_gelu(x);
}

Real emit_erf(Real x) {
  const Real magnitude = abs(x);
  const Real result = select(less(magnitude, 1.0), erf_small(magnitude), erf_large(magnitude));
  return copysign(result, x);
}

Real emit_erfc(Real x) {
  const Real result = call_function(
      "erfc", {to_f64(x)}, [](const std::vector<Real>& args) { return erfc_body(args[0]); });
  return narrow_like(x, result);
}

Real emit_gelu(Real x, bool tanh_form) { return tanh_form ? gelu_tanh(x) : gelu_exact(x); }

}  // namespace kiln::cpu
