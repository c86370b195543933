// exp, its inverse, and what is made of them.
#include <cmath>
#include <limits>
#include <numbers>

#include "backends/cpu/compile/math.h"

namespace kiln::cpu {

using llvm::Value;

namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

Value* integer_constant(Value* like, uint64_t bits) {
  return llvm::ConstantInt::get(like->getType(), bits);
}

Value* as_bits(Real x) {
  llvm::Type* integer = x.is_f64() ? x.ir->getInt64Ty() : x.ir->getInt32Ty();
  return x.ir->CreateBitCast(x.value, x.value->getType()->getWithNewType(integer));
}

Real from_bits(Real like, Value* bits) {
  return like.with(like.ir->CreateBitCast(bits, like.value->getType()));
}

int mantissa_bits(Real x) { return x.is_f64() ? 52 : 23; }

// x = power * ln 2 + rest. The power is an integer, and is also the low bits of `shifter`.
struct Reduced {
  Real power, rest, shifter;
};

Reduced reduce_by_ln2(Real x) {
  // Adding 1.5 * 2^52 (2^23) pushes the fraction out, rounding to nearest.
  const double magic = x.is_f64() ? 0x1.8p52 : 0x1.8p23;
  const double high = x.is_f64() ? 0x1.62e42fefa39efp-1 : 0x1.62e43p-1;
  const double low = x.is_f64() ? 0x1.abc9e3b39803fp-56 : -0x1.05c61p-29;
  const Real shifter = fma(x, std::numbers::log2e, x.of(magic));
  const Real power = shifter - magic;
  return {power, fma(-power, low, fma(-power, high, x)), shifter};
}

// (e^r - 1 - r) / r^2 for |r| <= ln(2) / 2.
Real exp_tail(Real r) {
  if (r.is_f64()) {
    return polynomial(r, {0x1p-1, 0x1.555555555555ap-3, 0x1.5555555555530p-5, 0x1.111111110f156p-7,
                          0x1.6c16c16c2759ep-10, 0x1.a01a01b1eea87p-13, 0x1.a01a0150487bap-16,
                          0x1.71ddf36839f67p-19, 0x1.27e59227dd84cp-22, 0x1.af66fa84fd85ep-26,
                          0x1.1e5ea2986a833p-29});
  }
  return polynomial(r,
                    {0x1.fffffcp-2, 0x1.555492p-3, 0x1.5558b4p-5, 0x1.12399ep-7, 0x1.6a4946p-10});
}

// x * 2^power for a normal result, by addition to the exponent.
Real scale(Real x, Real shifter) {
  Value* power = x.ir->CreateShl(as_bits(shifter), static_cast<uint64_t>(mantissa_bits(x)));
  return from_bits(x, x.ir->CreateAdd(as_bits(x), power));
}

// Least x whose e^x overflows, and least whose e^x is a normal number: smaller results are 0.
double exp_overflow(Real x) { return x.is_f64() ? 0x1.62e42fefa39efp+9 : 0x1.62e42ep+6; }
double exp_underflow(Real x) { return x.is_f64() ? -0x1.6232bdd7abcd2p+9 : -0x1.5d589ep+6; }

}  // namespace

Real emit_exp(Real x) {
  const auto [power, r, shifter] = reduce_by_ln2(x);
  const Real mantissa = fma(exp_tail(r), r * r, r) + 1.0;
  Real result = scale(mantissa, shifter);
  result = select(less(x, exp_underflow(x)), 0.0, result);
  return select(greater(x, exp_overflow(x)), kInfinity, result);
}

// 2^n * (e^r - 1) + (2^n - 1), with half of 2^n, which does not overflow.
Real emit_expm1(Real x) {
  const Real bounded = at_least(x, -40.0);
  const auto [power, r, shifter] = reduce_by_ln2(bounded);
  const Real tail = fma(exp_tail(r), r * r, r);
  const Real half = scale(x.of(0.5), shifter);
  Real result = fma(half, tail, half - 0.5);
  result = copysign(result + result, x);
  result = select(greater(x, exp_overflow(x)), kInfinity, result);
  return select(is_nan(x), x, result);
}

Real emit_tanh(Real x) {
  const Real magnitude = abs(x);
  if (x.is_f64()) {
    const Real t = emit_expm1(at_most(magnitude + magnitude, 44.0));
    return copysign(t / (t + 2.0), x);
  }
  const Real z = x * x;
  const Real tail =
      polynomial(z, {-0x1.555532p-2, 0x1.110704p-3, -0x1.b838a0p-5, 0x1.5211c4p-6, -0x1.758facp-8});
  const Real small = fma(magnitude * z, tail, magnitude);
  const Real large = 1.0 - 2.0 / (emit_exp(magnitude + magnitude) + 1.0);
  return copysign(select(less(magnitude, 0.625), small, large), x);
}

Real emit_sigmoid(Real x) { return 1.0 / (emit_exp(-x) + 1.0); }

namespace {

// x = 2^power * (1 + fraction), 1 + fraction between sqrt(1/2) and sqrt(2).
struct Split {
  Real power, fraction;
};

Split split_exponent(Real x) {
  auto& ir = *x.ir;
  const bool f64 = x.is_f64();
  const int shift = mantissa_bits(x);
  const double smallest_normal = f64 ? 0x1p-1022 : 0x1p-126;
  Value* subnormal = less(x, smallest_normal);
  const Real scaled = select(subnormal, x * (f64 ? 0x1p52 : 0x1p23), x);
  Value* bits = as_bits(scaled);
  Value* origin = integer_constant(bits, f64 ? 0x3fe6a09e667f3bcdULL : 0x3f3504f3U);  // sqrt(1/2)
  Value* above = ir.CreateSub(bits, origin);
  Value* power = ir.CreateAShr(above, static_cast<uint64_t>(shift));
  Value* mantissa = ir.CreateAnd(above, integer_constant(bits, (uint64_t{1} << shift) - 1));
  const Real fraction = from_bits(x, ir.CreateAdd(mantissa, origin)) - 1.0;
  const Real exponent = x.with(ir.CreateSIToFP(power, x.value->getType()));
  return {select(subnormal, exponent - static_cast<double>(shift), exponent), fraction};
}

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

}  // namespace

Real emit_log(Real x) {
  const double high = x.is_f64() ? 0x1.62e42fefa39efp-1 : 0x1.62e43p-1;
  const double low = x.is_f64() ? 0x1.abc9e3b39803fp-56 : -0x1.05c61p-29;
  const auto [power, f] = split_exponent(x);
  Real result = fma(power, high, f + fma(power, low, log_tail(f)));
  result = select(equal(x, kInfinity), x, result);
  result = select(equal(x, 0.0), -kInfinity, result);
  return select(x.ir->CreateFCmpULT(x.value, x.of(0.0).value), std::nan(""), result);
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

Real emit_pow(Real base, Real exponent) {
  auto& ir = *base.ir;
  Real a = base, b = exponent;
  if (!base.is_f64()) {  // a relative error of log(a) grows by the exponent: f64 hides it
    llvm::Type* wide = base.value->getType()->getWithNewType(ir.getDoubleTy());
    a = a.with(ir.CreateFPExt(a.value, wide));
    b = b.with(ir.CreateFPExt(b.value, wide));
  }
  Real result = emit_exp(b * emit_log(abs(a)));
  Value* integer = equal(trunc(b), b);
  const Real half = b * 0.5;
  Value* odd = ir.CreateAnd(integer, unequal(trunc(half), half));
  Value* negative = less(copysign(a.of(1.0), a), 0.0);
  result = select(ir.CreateAnd(negative, odd), -result, result);
  Value* finite_negative = ir.CreateAnd(less(a, 0.0), greater(a, -kInfinity));
  result = select(ir.CreateAnd(finite_negative, ir.CreateNot(integer)), std::nan(""), result);
  Value* is_one = ir.CreateOr(equal(b, 0.0), equal(a, 1.0));
  is_one = ir.CreateOr(is_one, ir.CreateAnd(equal(a, -1.0), equal(abs(b), kInfinity)));
  result = select(is_one, 1.0, result);
  if (base.is_f64()) return result;
  return base.with(ir.CreateFPTrunc(result.value, base.value->getType()));
}

}  // namespace kiln::cpu
