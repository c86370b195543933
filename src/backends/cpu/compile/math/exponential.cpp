// exp and what is made of it.
#include <limits>
#include <numbers>

#include <llvm/IR/IntrinsicsX86.h>

#include "backends/cpu/compile/emit/target.h"
#include "backends/cpu/compile/math/math.h"

namespace kiln::cpu {

using llvm::Value;

namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

int mantissa_bits(Real x) { return x.is_f64() ? 52 : 23; }
int exponent_bias(Real x) { return x.is_f64() ? 1023 : 127; }

// Adding it pushes the fraction out, rounding to nearest, and leaves the integer plus twice the
// exponent's bias in the low bits.
double shifter_of(Real x) { return x.is_f64() ? 0x1.8p52 + 2 * 1023 : 0x1.8p23 + 2 * 127; }

// x = power * ln 2 + rest. The power is an integer.
struct Reduced {
  Real power, rest, shifter;
};

Reduced reduce_by_ln2(Real x) {
  const double high = x.is_f64() ? 0x1.62e42fefa39efp-1 : 0x1.62e43p-1;
  const double low = x.is_f64() ? 0x1.abc9e3b39803fp-56 : -0x1.05c61p-29;
  const Real shifter = fma(x, std::numbers::log2e, x.of(shifter_of(x)));
  const Real power = shifter - shifter_of(x);
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

Real exp_of_rest(Real r) { return fma(exp_tail(r), r * r, r) + 1.0; }

// The instruction for whole registers of AVX-512; null for others.
Value* scale_instruction(Real x, Real power) {
  const auto* type = llvm::dyn_cast<llvm::FixedVectorType>(x.value->getType());
  const unsigned whole = x.is_f64() ? 8 : 16;
  llvm::IRBuilder<>& ir = *x.ir;
  if (type == nullptr || type->getNumElements() != whole || !has_feature(ir, Feature::Avx512F))
    return nullptr;
  constexpr int kCurrentRounding = 4;
  const auto id = x.is_f64() ? llvm::Intrinsic::x86_avx512_mask_scalef_pd_512
                             : llvm::Intrinsic::x86_avx512_mask_scalef_ps_512;
  Value* all = x.is_f64() ? ir.getInt8(-1) : ir.getInt16(-1);
  return ir.CreateIntrinsic(id, {},
                            {x.value, power.value, x.value, all, ir.getInt32(kCurrentRounding)});
}

// x * 2^power, rounded once: results may be denormal, zero or infinite. |power| is below twice the
// exponent's bias. Without an instruction for it, by halves of the power.
Real scale(Real x, Real power, Real shifter) {
  if (Value* scaled = scale_instruction(x, power)) return x.with(scaled);
  auto& ir = *x.ir;
  const auto shift = static_cast<uint64_t>(mantissa_bits(x));
  const uint64_t exponent = static_cast<uint64_t>(2 * exponent_bias(x) + 1) << shift;
  Value* bits = shifter.bits();
  Value* first = ir.CreateAnd(ir.CreateShl(bits, shift - 1), x.integer(exponent));
  Value* second = ir.CreateSub(ir.CreateShl(bits, shift), first);
  return x * x.from_bits(first) * x.from_bits(second);
}

// Of what is neither zero nor infinite below and above these bounds, also when halved, e^x or 2^x is made. What would
// underflow is made of zero instead: Intel's cores take hundreds of cycles for a vector with a result below the normal
// numbers, and softmax has zeros wherever its operand is masked.
Real exp_between(Real x, bool base_two, Real (*make)(Real inside)) {
  const double low = x.is_f64() ? -1076 : -151, high = x.is_f64() ? 1026 : 130;
  const double unit = base_two ? 1 : std::numbers::ln2;
  Value* vanishes = less(x, low * unit);
  return select(vanishes, 0.0, make(at_most(select(vanishes, 0.0, x), high * unit)));
}

}  // namespace

Real emit_exp(Real x) {
  return exp_between(x, false, [](Real inside) {
    const auto [power, r, shifter] = reduce_by_ln2(inside);
    return scale(exp_of_rest(r), power, shifter);
  });
}

Real emit_exp(Real high, Real low, int halvings) {
  const auto [power, r, shifter] = reduce_by_ln2(high);
  Real mantissa = exp_of_rest(r + low);
  for (; halvings > 0; --halvings) mantissa = mantissa * 0.5;
  return scale(mantissa, power, shifter);
}

Real emit_exp2(Real x) {
  return exp_between(x, true, [](Real inside) {
    const Real shifter = inside + shifter_of(inside);
    const Real power = shifter - shifter_of(inside);
    return scale(exp_of_rest((inside - power) * std::numbers::ln2), power, shifter);
  });
}

Real emit_exp2(Real high, Real low) {
  const Real shifter = high + shifter_of(high);
  const Real power = shifter - shifter_of(high);
  const Real r = ((high - power) + low) * std::numbers::ln2;
  return scale(exp_of_rest(r), power, shifter);
}

Real emit_rough_exp2(Real x) {
  const Real shifter = x + shifter_of(x);
  const Real power = shifter - shifter_of(x);
  const Real mantissa = polynomial(
      x - power, {0x1.ffffe8p-1, 0x1.62e0dcp-1, 0x1.ec06dap-3, 0x1.ca1440p-5, 0x1.3997cep-7});
  return scale(mantissa, power, shifter);
}

// 2^n * (e^r - 1) + (2^n - 1), with half of 2^n, which does not overflow.
Real emit_expm1(Real x) {
  // Least x whose e^x overflows.
  const double overflow = x.is_f64() ? 0x1.62e42fefa39efp+9 : 0x1.62e42ep+6;
  const auto [power, r, shifter] = reduce_by_ln2(at_least(x, -40.0));
  const Real tail = fma(exp_tail(r), r * r, r);
  const auto shift = static_cast<uint64_t>(mantissa_bits(x));
  Value* exponent = x.ir->CreateShl(shifter.bits(), shift);
  // The shifter has twice the bias where the exponent of a half has the bias less one.
  const auto excess = static_cast<uint64_t>(exponent_bias(x) + 1);
  const Real half = x.from_bits(x.ir->CreateSub(exponent, x.integer(excess << shift)));
  Real result = fma(half, tail, half - 0.5);
  result = copysign(result + result, x);
  result = select(greater(x, overflow), kInfinity, result);
  // Tiny numbers, whose halves may not exist, and NaN.
  Value* same = x.ir->CreateFCmpULT(abs(x).value, x.of(0x1p-60).value);
  return select(same, x, result);
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

namespace {

// Half of e^x, for x >= 0.
Real half_exp(Real x) { return emit_exp(at_most(x, 712.0), x.of(0.0), 1); }

}  // namespace

// Half of e^|x|, which overflows only where the result does, and its reciprocal. Near zero the
// series, where the two would cancel.
Real emit_sinh(Real x) {
  const Real a = abs(to_f64(x));
  const Real half = half_exp(a);
  const Real large = half - 0.25 / half;
  const Real z = a * a;
  const Real series =
      polynomial(z, {1.0 / 6, 1.0 / 120, 1.0 / 5040, 1.0 / 362880, 1.0 / 39916800, 1.0 / 6227020800,
                     1.0 / 1307674368000, 1.0 / 355687428096000, 1.0 / 121645100408832000});
  const Real small = fma(a * z, series, a);
  return copysign(narrow_like(x, select(less(a, 1.0), small, large)), x);
}

Real emit_cosh(Real x) {
  const Real a = abs(to_f64(x));
  const Real half = half_exp(a);
  return narrow_like(x, half + 0.25 / half);
}

Real emit_sigmoid(Real x) { return 1.0 / (emit_exp(-x) + 1.0); }

// Where 2^y is too small to matter it need not be denormal, and where it is infinite it is no further away.
Real emit_exp_for_16_bits(Real x) {
  return emit_rough_exp2(at_most(at_least(x * std::numbers::log2e, -126.0), 200.0));
}

}  // namespace kiln::cpu
