// Activations whose result is f16 or bf16: as exact as these types can tell, in a third of the
// instructions that f32 takes. The units for 2^x and 1 / x are right to 22 bits, a rounding to f16
// keeps 11.

DEVICE float half_exp2(float x) {
  float result;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(result) : "f"(x));
  return result;
}
DEVICE float half_reciprocal(float x) {
  float result;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(result) : "f"(x));
  return result;
}

DEVICE float op_sigmoid_of_half(float x) {
  return half_reciprocal(1.0f + half_exp2(x * -1.4426950408889634f));
}
// x / (1 + e^-x); the quotient of -inf is NaN, as PyTorch's.
DEVICE float op_silu_of_half(float x) { return x * op_sigmoid_of_half(x); }

// max(x, 0) - |x| / 2 erfc(|x| / sqrt 2), with erfc as a polynomial in 1 / (1 + p x) times e^-x^2
// (Hastings): the error is 2e-7 at most, and relative to the result where that is small. Minus
// infinity gives NaN, as PyTorch's.
DEVICE float op_gelu_of_half(float x) {
  const float size = fabsf(x);
  const float t = half_reciprocal(fmaf(size, 0.23164190f, 1.0f));
  const float power = half_exp2(x * x * -0.72134752f);
  float sum = fmaf(t, 1.061405429f, -1.453152027f);
  sum = fmaf(sum, t, 1.421413741f);
  sum = fmaf(sum, t, -0.284496736f);
  sum = fmaf(sum, t, 0.254829592f);
  const float tail = sum * t * power * (0.5f * fminf(size, 30.0f));
  return fmaf(x, x < 0.0f ? 0.0f : 1.0f, -tail);
}

// x / (1 + e^-v) with v = 2 sqrt(2 / pi) (x + 0.044715 x^3).
DEVICE float op_gelu_tanh_of_half(float x) {
  const float slope = fmaf(x * x, -0.10294324f, -2.3022082f);  // of v, over -log 2
  return x * half_reciprocal(1.0f + half_exp2(x * slope));
}
