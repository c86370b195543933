// Elementary functions: polynomials, no calls out of the kernel. f32 and f64, scalars and vectors.
// docs/cpu_backend.md lists their error bounds.
#pragma once

#include "backends/cpu/compile/math/real.h"

namespace kiln::cpu {

Real emit_exp(Real x);
Real emit_exp2(Real x);
Real emit_expm1(Real x);
// 2^(high + low) and e^(high + low) / 2^halvings, where |low| is below an ulp of high, and the
// power of two is below 250 (f32) or 2000 (f64) on both sides.
Real emit_exp2(Real high, Real low);
Real emit_exp(Real high, Real low, int halvings = 0);
Real emit_tanh(Real x);
Real emit_sinh(Real x);
Real emit_cosh(Real x);
Real emit_sigmoid(Real x);

// 2^x to 2^-18, for f32 and |x| < 254.
Real emit_rough_exp2(Real x);
// e^x to 2^-16, for f32; no less than the least normal number.
Real emit_exp_for_16_bits(Real x);

Real emit_log(Real x);
Real emit_log1p(Real x);
// Exact for powers of 2 and of 10.
Real emit_log2(Real x);
Real emit_log10(Real x);
Real emit_asinh(Real x);
Real emit_acosh(Real x);
Real emit_atanh(Real x);

Real emit_pow(Real base, Real exponent);
Real emit_hypot(Real a, Real b);

Real emit_erf(Real x);
Real emit_erfc(Real x);
Real emit_gelu(Real x, bool tanh_form);
// To 2^-16, for results that are rounded to 16 bits. Both forms of GELU are 0 where they are below 1e-35.
Real emit_gelu_for_16_bits(Real x, bool tanh_form);

Real emit_sin(Real x);
Real emit_cos(Real x);
Real emit_tan(Real x);
Real emit_asin(Real x);
Real emit_acos(Real x);
Real emit_atan2(Real y, Real x);

// Exact.
Real emit_fmod(Real a, Real b);
Real emit_remainder(Real a, Real b);
Real emit_floor_div(Real a, Real b);

}  // namespace kiln::cpu
