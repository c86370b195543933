// sin, cos, tan, and their inverses.
#include <numbers>

#include "backends/cpu/compile/math/call.h"
#include "backends/cpu/compile/math/math.h"
#include "backends/cpu/compile/math/reduction.h"

namespace kiln::cpu {

using llvm::Value;

namespace {

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

// The digits of the operand's dtype are enough for what is left of the angle.
struct Narrow {
  Real rest;
  Value* number;
};

Narrow reduce(Real x) {
  const Quadrant quadrant = reduce_by_half_pi(to_f64(x));
  const Real rest = narrow_like(x, quadrant.rest);
  return {rest, x.ir->CreateTrunc(quadrant.number, x.integer_type())};
}

Real sine_body(Real x) {
  const auto [rest, number] = reduce(x);
  return select(equal(x, 0.0), x, sine(rest, number));
}

Real cosine_body(Real x) {
  const auto [rest, number] = reduce(x);
  return sine(rest, x.ir->CreateAdd(number, x.integer(1)));
}

// sin / cos, and -cos / sin in odd quadrants. In f64, or the errors of both would be seen.
Real tangent_body(Real x) {
  const auto [rest, number] = reduce(x);
  const Real s = sin_near_zero(rest), c = cos_near_zero(rest);
  Value* odd = x.ir->CreateIsNotNull(x.ir->CreateAnd(number, x.integer(1)));
  return select(equal(x, 0.0), x, select(odd, -c, s) / select(odd, s, c));
}

Real out_of_line(const char* name, Real x, Real (*body)(Real x)) {
  return call_function(name, {x}, [&](const std::vector<Real>& args) { return body(args[0]); });
}

// sqrt(1 - x^2), with full precision near the ends.
Real complement(Real x) { return sqrt((1.0 - x) * (x + 1.0)); }

Real asin_body(Real x) { return emit_atan2(x, complement(x)); }
Real acos_body(Real x) { return emit_atan2(complement(x), x); }

}  // namespace

Real emit_sin(Real x) { return out_of_line("sin", x, sine_body); }
Real emit_cos(Real x) { return out_of_line("cos", x, cosine_body); }
Real emit_tan(Real x) { return narrow_like(x, out_of_line("tan", to_f64(x), tangent_body)); }
Real emit_asin(Real x) { return narrow_like(x, out_of_line("asin", to_f64(x), asin_body)); }
Real emit_acos(Real x) { return narrow_like(x, out_of_line("acos", to_f64(x), acos_body)); }

Real emit_atan2(Real y, Real x) {
  auto& ir = *x.ir;
  const Real across = abs(x), up = abs(y);
  Value* steep = greater(up, across);
  Real longer = select(steep, up, across), shorter = select(steep, across, up);
  // Their sum must not overflow, nor a share of them lose its digits.
  const bool f64 = x.is_f64();
  Real factor = select(less(longer, f64 ? 0x1p-900 : 0x1p-90), f64 ? 0x1p100 : 0x1p60, x.of(1.0));
  factor = select(greater(longer, f64 ? 0x1p1022 : 0x1p126), 0.25, factor);
  longer = longer * factor;
  shorter = shorter * factor;
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
