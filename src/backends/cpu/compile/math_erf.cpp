// The error function, and GELU.
#include <numbers>

#include "backends/cpu/compile/math.h"

namespace kiln::cpu {

namespace {

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

}  // namespace

Real emit_erf(Real x) {
  const Real magnitude = abs(x);
  const Real result = select(less(magnitude, 1.0), erf_small(magnitude), erf_large(magnitude));
  return copysign(result, x);
}

Real emit_gelu(Real x, bool tanh_form) {
  if (!tanh_form) {
    const Real half = x * 0.5;
    return fma(half, emit_erf(x * (std::numbers::sqrt2 / 2)), half);
  }
  // x / 2 * (1 + tanh(u)) = x * sigmoid(2 u)
  const Real cubic = fma(x * x, 0.044715, x.of(1.0)) * x;
  const double twice = 2 * std::numbers::sqrt2 * std::numbers::inv_sqrtpi;
  return x / (emit_exp(cubic * -twice) + 1.0);
}

}  // namespace kiln::cpu
