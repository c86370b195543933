// sin, cos, atan2.
#include <numbers>

#include "backends/cpu/compile/math.h"

namespace kiln::cpu {

using llvm::Value;

namespace {

// pi / 2 in three parts; the sum of two is good for f32, of three for f64.
constexpr double kHalfPi[] = {0x1.921fb54442d18p+0, 0x1.1a62633145c07p-54, -0x1.f1976b7ed8fbcp-110};

// x = quadrant * pi / 2 + rest.
struct Quadrant {
  Real rest;
  Value* number;  // modulo 4 in its low bits; integers as wide as the values
};

Quadrant reduce_by_half_pi(Real x) {
  auto& ir = *x.ir;
  llvm::Type* type = x.value->getType();
  const bool f64 = x.is_f64();
  const Real wide =
      f64 ? x : x.with(ir.CreateFPExt(x.value, type->getWithNewType(ir.getDoubleTy())));
  const Real shifter = fma(wide, 2 * std::numbers::inv_pi, wide.of(0x1.8p52));
  const Real count = shifter - 0x1.8p52;
  Real rest = fma(-count, kHalfPi[1], fma(-count, kHalfPi[0], wide));
  if (f64) rest = fma(-count, kHalfPi[2], rest);
  // Where the count is no longer exact, the rest may be anything: keep the polynomials in range.
  rest = at_most(at_least(rest, -0.8), 0.8);
  Value* number = ir.CreateBitCast(shifter.value, type->getWithNewType(ir.getInt64Ty()));
  if (f64) return {rest, number};
  return {x.with(ir.CreateFPTrunc(rest.value, type)),
          ir.CreateTrunc(number, type->getWithNewType(ir.getInt32Ty()))};
}

Real sin_near_zero(Real r) {
  const Real z = r * r;
  const Real tail =
      r.is_f64()
          ? polynomial(z, {-0x1.5555555555555p-3, 0x1.1111111111067p-7, -0x1.a01a019ffdb86p-13,
                           0x1.71de3a32a4664p-19, -0x1.ae642acc8aec6p-26, 0x1.6108ac104bfeep-33,
                           -0x1.9f6c76e52f589p-41})
          : polynomial(z, {-0x1.555556p-3, 0x1.111176p-7, -0x1.a05bb0p-13, 0x1.7cd378p-19});
  return fma(tail, z * r, r);
}

Real cos_near_zero(Real r) {
  const Real z = r * r;
  const Real tail =
      r.is_f64()
          ? polynomial(z, {0x1.555555555554cp-5, -0x1.6c16c16c1521cp-10, 0x1.a01a019cbeba5p-16,
                           -0x1.27e4f811fc107p-22, 0x1.1ee9f0abaab6ap-29, -0x1.8fb0c7c855b86p-37})
          : polynomial(z, {0x1.55554ap-5, -0x1.6c0c1ap-10, 0x1.99e0eap-16});
  return fma(tail, z * z, fma(z, -0.5, z.of(1.0)));
}

// The sine of r + number * pi / 2.
Real sine(Real r, Value* number) {
  auto& ir = *r.ir;
  auto bit = [&](uint64_t mask) {
    return ir.CreateIsNotNull(
        ir.CreateAnd(number, llvm::ConstantInt::get(number->getType(), mask)));
  };
  const Real value = select(bit(1), cos_near_zero(r), sin_near_zero(r));
  return select(bit(2), -value, value);
}

// atan(x) - x for |x| <= tan(pi / 8).
Real atan_tail(Real x) {
  const Real z = x * x;
  const Real tail =
      x.is_f64()
          ? polynomial(z, {-0x1.5555555555554p-2, 0x1.9999999999582p-3, -0x1.249249246f3bap-3,
                           0x1.c71c71b4457ffp-4, -0x1.745d144d01c2ap-4, 0x1.3b13649c7df2dp-4,
                           -0x1.110be63402aa0p-4, 0x1.e1674d9e7330cp-5, -0x1.ab390e4d4b3cep-5,
                           0x1.6fd8b69ada943p-5, -0x1.0fb8050b7c946p-5, 0x1.e7d2dbdc8fa51p-7})
          : polynomial(
                z, {-0x1.55554ap-2, 0x1.9991e8p-3, -0x1.23ba48p-3, 0x1.b22f76p-4, -0x1.f32200p-5});
  return tail * z * x;
}

}  // namespace

Real emit_sin(Real x) {
  const auto [rest, number] = reduce_by_half_pi(x);
  return select(equal(x, 0.0), x, sine(rest, number));
}

Real emit_cos(Real x) {
  const auto [rest, number] = reduce_by_half_pi(x);
  Value* next = x.ir->CreateAdd(number, llvm::ConstantInt::get(number->getType(), 1));
  return sine(rest, next);
}

Real emit_atan2(Real y, Real x) {
  auto& ir = *x.ir;
  const Real across = abs(x), up = abs(y);
  Value* steep = greater(up, across);
  const Real longer = select(steep, up, across), shorter = select(steep, across, up);
  // atan(s / l) = pi / 4 + atan((s - l) / (s + l)) keeps the argument small.
  Value* same = ir.CreateAnd(equal(longer, shorter), greater(longer, 0.0));
  Value* wide = ir.CreateOr(same, greater(shorter, longer * (std::numbers::sqrt2 - 1)));
  Real numerator = select(wide, shorter - longer, shorter);
  Real denominator = select(wide, shorter + longer, longer);
  Value* trivial = ir.CreateOr(same, equal(longer, 0.0));
  numerator = select(trivial, 0.0, numerator);
  denominator = select(trivial, 1.0, denominator);
  const Real u = numerator / denominator;
  Real angle = u + atan_tail(u);
  angle = select(wide, angle + std::numbers::pi / 4, angle);
  angle = select(steep, std::numbers::pi / 2 - angle, angle);
  Value* left = less(copysign(x.of(1.0), x), 0.0);
  angle = copysign(select(left, std::numbers::pi - angle, angle), y);
  Value* undefined = ir.CreateFCmpUNO(x.value, y.value);
  return select(undefined, x + y, angle);
}

}  // namespace kiln::cpu
