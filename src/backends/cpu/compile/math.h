// Elementary functions as straight-line code: polynomials, no calls. f32 and f64, scalars and
// vectors. docs/cpu_backend.md lists their error bounds.
#pragma once

#include "backends/cpu/compile/real.h"

namespace kiln::cpu {

Real emit_exp(Real x);
Real emit_expm1(Real x);
Real emit_log(Real x);
Real emit_log1p(Real x);
Real emit_tanh(Real x);
Real emit_sigmoid(Real x);
Real emit_erf(Real x);
Real emit_gelu(Real x, bool tanh_form);
// f32: |x| < 2^45; f64: |x| < 2^30. Beyond, the result is in [-1, 1] but has no accurate digits.
Real emit_sin(Real x);
Real emit_cos(Real x);
Real emit_atan2(Real y, Real x);
Real emit_pow(Real base, Real exponent);
// Exact while |a / b| < 2^100; somewhere between 0 and b beyond.
Real emit_fmod(Real a, Real b);
Real emit_remainder(Real a, Real b);
Real emit_floor_div(Real a, Real b);

}  // namespace kiln::cpu
