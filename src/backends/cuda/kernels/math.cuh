// The pointwise operations, by name: op_exp(x) for float and double, op_floor_div(a, b) for these and
// all integers, and so on.
//
// What they mean to the last bit is in docs/ir.md: integers wrap around and never trap, bool is a number
// of one bit, minima and maxima propagate NaN. The elementary functions are those of CUDA's libdevice,
// which are within 4 units in the last place (docs/cuda_backend.md has the list); what is made of them
// here keeps to that.

// --- Floating point: one operand -------------------------------------------------------------

#define ELEMENTARY(name, narrow, wide)                       \
  DEVICE float op_##name(float x) { return narrow(x); }      \
  DEVICE double op_##name(double x) { return wide(x); }

ELEMENTARY(neg, -, -)
ELEMENTARY(abs, fabsf, fabs)
ELEMENTARY(exp, expf, exp)
ELEMENTARY(exp2, exp2f, exp2)
ELEMENTARY(expm1, expm1f, expm1)
ELEMENTARY(log, logf, log)
ELEMENTARY(log1p, log1pf, log1p)
ELEMENTARY(sqrt, sqrtf, sqrt)
ELEMENTARY(rsqrt, 1.0f / sqrtf, 1.0 / sqrt)
ELEMENTARY(reciprocal, 1.0f /, 1.0 /)
ELEMENTARY(sin, sinf, sin)
ELEMENTARY(cos, cosf, cos)
ELEMENTARY(tan, tanf, tan)
ELEMENTARY(asin, asinf, asin)
ELEMENTARY(acos, acosf, acos)
ELEMENTARY(sinh, sinhf, sinh)
ELEMENTARY(cosh, coshf, cosh)
ELEMENTARY(tanh, tanhf, tanh)
ELEMENTARY(asinh, asinhf, asinh)
ELEMENTARY(acosh, acoshf, acosh)
ELEMENTARY(atanh, atanhf, atanh)
ELEMENTARY(erf, erff, erf)
ELEMENTARY(erfc, erfcf, erfc)
ELEMENTARY(floor, floorf, floor)
ELEMENTARY(ceil, ceilf, ceil)
ELEMENTARY(round, rintf, rint)
ELEMENTARY(trunc, truncf, trunc)

DEVICE bool op_isnan(float x) { return x != x; }
DEVICE bool op_isnan(double x) { return x != x; }
DEVICE bool op_isinf(float x) { return fabsf(x) == __int_as_float(0x7f800000); }
DEVICE bool op_isinf(double x) { return fabs(x) == __longlong_as_double(0x7ff0000000000000ll); }

// Exact for powers of 2, denormal ones too.
DEVICE double op_log2(double x) {
  const bool denormal = x < 0x1p-1022;
  const double scaled = denormal ? x * 0x1p54 : x;
  const long long bits = __double_as_longlong(scaled);
  const int exponent = (int)(bits >> 52) - (denormal ? 1077 : 1023);
  const bool power = (bits & 0xfffffffffffffll) == 0 && x > 0.0 && bits < 0x7ff0000000000000ll;
  return power ? (double)exponent : log2(x);
}
DEVICE float op_log2(float x) { return log2f(x); }

// Exact for powers of 10: those that a double holds are 10^0 to 10^22.
DEVICE double op_log10(double x) {
  const double result = log10(x), whole = rint(result);
  if (!(whole >= 0.0 && whole <= 22.0)) return result;
  double power = 1.0;
  for (int i = 0; i < (int)whole; ++i) power *= 10.0;
  return power == x ? whole : result;
}
DEVICE float op_log10(float x) { return (float)op_log10((double)x); }

template <class T>
DEVICE T op_sigmoid(T x) {
  return (T)1 / ((T)1 + op_exp(-x));
}
template <class T>
DEVICE T op_silu(T x) {
  return x / (op_exp(-x) + (T)1);
}

// x * (1 + erf(x / sqrt 2)) / 2: the normal distribution has digits left where x is negative.
DEVICE float op_gelu(float x) { return x == 0.0f ? x : x * normcdff(x); }
DEVICE double op_gelu(double x) { return x == 0.0 ? x : x * normcdf(x); }

// x / (1 + e^-v) with v = 2 sqrt(2 / pi) (x + 0.044715 x^3). A rounding of v is seen in the result many
// times over where v is large: v is a sum of two numbers.
DEVICE float op_gelu_tanh(float x) {
  const float kHigh = 1.5957691216057308f, kLow = (float)(1.5957691216057308 - (double)kHigh);
  const float kCube = (float)(1.5957691216057308 * 0.044715);
  const float kCubeLow = (float)(1.5957691216057308 * 0.044715 - (double)kCube);
  const float square = x * x, square_low = fmaf(x, x, -square);
  const float cube = kCube * square;
  const float cube_low = fmaf(kCube, square, -cube) + (kCubeLow * square + kCube * square_low);
  const float slope = kHigh + cube, back = slope - kHigh;
  const float slope_low = ((kHigh - (slope - back)) + (cube - back)) + (kLow + cube_low);
  const float v = x * slope;
  const float v_low = fabsf(x) < 100.0f ? fmaf(x, slope, -v) + x * slope_low : 0.0f;
  const float power = expf(-v);
  return x / (1.0f + (op_isinf(power) ? power : power - power * v_low));
}
DEVICE double op_gelu_tanh(double x) {
  const double kHigh = 1.5957691216057308, kLow = -9.96930880911092e-17;
  const double kCube = 0.07135481627260025, kCubeLow = -6.175149918155315e-19;
  const double square = x * x, square_low = fma(x, x, -square);
  const double cube = kCube * square;
  const double cube_low = fma(kCube, square, -cube) + (kCubeLow * square + kCube * square_low);
  const double slope = kHigh + cube, back = slope - kHigh;
  const double slope_low = ((kHigh - (slope - back)) + (cube - back)) + (kLow + cube_low);
  const double v = x * slope;
  const double v_low = fabs(x) < 1e4 ? fma(x, slope, -v) + x * slope_low : 0.0;
  const double power = exp(-v);
  return x / (1.0 + (op_isinf(power) ? power : power - power * v_low));
}

// --- The same for results of 16 bits, which have 11 digits at most: within 2^-14 ---

DEVICE float power_of_2_narrow(float x) {
  float result;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(result) : "f"(x));
  return result;
}
DEVICE float reciprocal_narrow(float x) {
  float result;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(result) : "f"(x));
  return result;
}
DEVICE float op_sigmoid_narrow(float x) {
  return reciprocal_narrow(1.0f + power_of_2_narrow(x * -1.44269504f));
}
DEVICE float op_silu_narrow(float x) { return x * op_sigmoid_narrow(x); }
// v of op_gelu_tanh.
DEVICE float op_gelu_tanh_narrow(float x) {
  return x * op_sigmoid_narrow(x * fmaf(0.0713548163f, x * x, 1.59576912f));
}
// erfc(z) / 2 = t p(t) e^(-z^2) with t = 1 / (1 + 0.54 z) and z = |x| / sqrt 2. p: a fit for a small largest
// relative error (3.9e-5) where z <= 9.9, least squares with weights raised where the error is largest.
DEVICE float op_gelu_narrow(float x) {
  const float t = reciprocal_narrow(fmaf(0.381837662f, fabsf(x), 1.0f));
  float p = fmaf(-0.0894008949f, t, 0.184263647f);
  p = fmaf(p, t, 0.0952657983f);
  p = fmaf(p, t, 0.157830954f);
  p = fmaf(p, t, 0.152021021f);
  const float half_tail = p * t * power_of_2_narrow(x * x * -0.721347520f);
  return x * (x < 0.0f ? half_tail : 1.0f - half_tail);
}

DEVICE float op_relu(float x) { return x < 0.0f ? 0.0f : x; }
DEVICE double op_relu(double x) { return x < 0.0 ? 0.0 : x; }
// Zeros and NaN are their own sign.
DEVICE float op_sign(float x) { return fabsf(x) > 0.0f ? copysignf(1.0f, x) : x; }
DEVICE double op_sign(double x) { return fabs(x) > 0.0 ? copysign(1.0, x) : x; }

// --- Floating point: two operands ------------------------------------------------------------

DEVICE float op_fmod(float a, float b) { return fmodf(a, b); }
DEVICE double op_fmod(double a, double b) { return fmod(a, b); }

template <class T>
DEVICE T floating_remainder(T a, T b) {
  const T rest = op_fmod(a, b);
  return rest != (T)0 && (rest < (T)0) != (b < (T)0) ? rest + b : rest;
}
DEVICE float op_remainder(float a, float b) { return floating_remainder(a, b); }
DEVICE double op_remainder(double a, double b) { return floating_remainder(a, b); }

DEVICE float copy_sign(float x, float sign) { return copysignf(x, sign); }
DEVICE double copy_sign(double x, double sign) { return copysign(x, sign); }

// From the exact remainder, so that the quotient is right where a / b rounds up to an integer.
template <class T>
DEVICE T floating_floor_div(T a, T b) {
  if (b == (T)0) return a / b;
  const T rest = op_fmod(a, b);
  T quotient = (a - rest) / b;
  if (rest != (T)0 && (rest < (T)0) != (b < (T)0)) quotient -= (T)1;
  if (quotient == (T)0) return copy_sign((T)0, a / b);
  const T floored = op_floor(quotient);
  return quotient - floored > (T)0.5 ? floored + (T)1 : floored;
}
DEVICE float op_floor_div(float a, float b) { return floating_floor_div(a, b); }
DEVICE double op_floor_div(double a, double b) { return floating_floor_div(a, b); }

DEVICE float op_pow(float a, float b) { return powf(a, b); }
DEVICE double op_pow(double a, double b) { return pow(a, b); }
DEVICE float op_atan2(float a, float b) { return atan2f(a, b); }
DEVICE double op_atan2(double a, double b) { return atan2(a, b); }
DEVICE float op_hypot(float a, float b) { return hypotf(a, b); }
DEVICE double op_hypot(double a, double b) { return hypot(a, b); }

// x to the power 1/2 and -1/2: minus infinity and minus zero give positive results.
template <class T>
DEVICE T power_half(T x) {
  return op_isinf(x) ? op_abs(x) : op_sqrt(x + (T)0);
}
template <class T>
DEVICE T power_minus_half(T x) {
  return op_isinf(x) ? (T)0 : (T)1 / op_sqrt(x + (T)0);
}

// The larger (smaller) of two numbers; b if it is NaN, NaN if a is.
template <class T>
DEVICE T op_maximum(T a, T b) {
  return a != a || a > b ? a : b;
}
template <class T>
DEVICE T op_minimum(T a, T b) {
  return a != a || a < b ? a : b;
}

// --- Integers --------------------------------------------------------------------------------

// Arithmetic wraps around: it is done without sign, in 64 bits, of which the compiler keeps those that
// are needed.
template <class T>
DEVICE unsigned long long bits_of(T x) {
  return (unsigned long long)(long long)x;
}

template <class T>
DEVICE T op_add(T a, T b) {
  return (T)(bits_of(a) + bits_of(b));
}
template <class T>
DEVICE T op_sub(T a, T b) {
  return (T)(bits_of(a) - bits_of(b));
}
template <class T>
DEVICE T op_mul(T a, T b) {
  return (T)(bits_of(a) * bits_of(b));
}
template <class T>
DEVICE T op_neg(T x) {
  return (T)(0 - bits_of(x));
}
template <class T>
DEVICE T op_abs(T x) {
  return x < 0 ? op_neg(x) : x;
}
template <class T>
DEVICE T op_sign(T x) {
  return (T)((x > 0) - (x < 0));
}
template <class T>
DEVICE T op_relu(T x) {
  return x < 0 ? (T)0 : x;
}
template <class T>
DEVICE T op_floor(T x) {
  return x;
}
template <class T>
DEVICE T op_ceil(T x) {
  return x;
}
template <class T>
DEVICE T op_round(T x) {
  return x;
}
template <class T>
DEVICE T op_trunc(T x) {
  return x;
}
template <class T>
DEVICE bool op_isnan(T) {
  return false;
}
template <class T>
DEVICE bool op_isinf(T) {
  return false;
}
template <class T>
DEVICE bool op_logical_not(T x) {
  return x == (T)0;
}
template <class T>
DEVICE T op_bitwise_not(T x) {
  return (T)~bits_of(x);
}
template <class T>
DEVICE T op_bitwise_and(T a, T b) {
  return (T)(bits_of(a) & bits_of(b));
}
template <class T>
DEVICE T op_bitwise_or(T a, T b) {
  return (T)(bits_of(a) | bits_of(b));
}
template <class T>
DEVICE T op_bitwise_xor(T a, T b) {
  return (T)(bits_of(a) ^ bits_of(b));
}

// Truncating. By zero: 0. The minimum by -1 wraps around.
template <class T>
DEVICE T op_div(T a, T b) {
  if (b == 0) return 0;
  return b == -1 ? op_neg(a) : (T)(a / b);
}
template <class T>
DEVICE T op_fmod(T a, T b) {
  return b == 0 || b == -1 ? (T)0 : (T)(a % b);
}
template <class T>
DEVICE T op_floor_div(T a, T b) {
  const T rest = op_fmod(a, b);
  return (T)(op_div(a, b) - (rest != 0 && (rest < 0) != (b < 0)));
}
template <class T>
DEVICE T op_remainder(T a, T b) {
  const T rest = op_fmod(a, b);
  return rest != 0 && (rest < 0) != (b < 0) ? (T)(rest + b) : rest;
}
// A negative exponent gives 0 unless the base is 1 or -1.
template <class T>
DEVICE T op_pow(T base, T exponent) {
  if (exponent < 0) {
    if (base == 1) return 1;
    return base == -1 ? (T)(exponent % 2 != 0 ? -1 : 1) : (T)0;
  }
  unsigned long long result = 1, square = bits_of(base);
  for (T rest = exponent; rest != 0; rest = (T)(rest >> 1), square *= square) {
    if ((rest & 1) != 0) result *= square;
  }
  return (T)result;
}

// Numbers of one bit: a sum is whether it is not 0, and no difference is.
DEVICE bool op_add(bool a, bool b) { return a || b; }
DEVICE bool op_sub(bool a, bool b) { return a != b; }
DEVICE bool op_mul(bool a, bool b) { return a && b; }
DEVICE bool op_div(bool a, bool b) { return a && b; }
DEVICE bool op_floor_div(bool a, bool b) { return a && b; }
DEVICE bool op_fmod(bool, bool) { return false; }
DEVICE bool op_remainder(bool, bool) { return false; }
DEVICE bool op_pow(bool a, bool b) { return a || !b; }
DEVICE bool op_neg(bool x) { return x; }
DEVICE bool op_abs(bool x) { return x; }
DEVICE bool op_sign(bool x) { return x; }
DEVICE bool op_relu(bool x) { return x; }
DEVICE bool op_bitwise_not(bool x) { return !x; }

// --- Conversions -----------------------------------------------------------------------------

// Towards zero. What does not fit, NaN included, is the least integer of the type.
template <class T>
DEVICE long long to_long(T x) {
  return x >= (T)-0x1p63 && x < (T)0x1p63 ? (long long)x : (long long)0x8000000000000000ull;
}
template <class T>
DEVICE int to_int(T x) {
  return x >= (T)-0x1p31 && x < (T)0x1p31 ? (int)x : (int)0x80000000u;
}
// -2^31 - 0.5 truncates to -2^31.
DEVICE int to_int(double x) {
  return x > -2147483649.0 && x < 0x1p31 ? (int)x : (int)0x80000000u;
}
