// Formulas over floating-point values, scalar or vector, written as formulas.
#pragma once

#include <initializer_list>

#include <llvm/IR/IRBuilder.h>

namespace kiln::cpu {

struct Real {
  llvm::IRBuilder<>* ir = nullptr;
  llvm::Value* value = nullptr;

  Real(llvm::IRBuilder<>& builder, llvm::Value* v) : ir(&builder), value(v) {}
  bool is_f64() const { return value->getType()->getScalarType()->isDoubleTy(); }
  Real with(llvm::Value* v) const { return {*ir, v}; }
  // A constant of the same type.
  Real of(double number) const { return with(llvm::ConstantFP::get(value->getType(), number)); }
  // Integers as wide as the values.
  llvm::Type* integer_type() const {
    return value->getType()->getWithNewType(is_f64() ? ir->getInt64Ty() : ir->getInt32Ty());
  }
  llvm::Value* bits() const { return ir->CreateBitCast(value, integer_type()); }
  llvm::Constant* integer(uint64_t number) const {
    return llvm::ConstantInt::get(integer_type(), number);
  }
  Real from_bits(llvm::Value* bits) const {
    return with(ir->CreateBitCast(bits, value->getType()));
  }
  Real unary(llvm::Intrinsic::ID id) const { return with(ir->CreateUnaryIntrinsic(id, value)); }
};

inline Real operator+(Real a, Real b) { return a.with(a.ir->CreateFAdd(a.value, b.value)); }
inline Real operator-(Real a, Real b) { return a.with(a.ir->CreateFSub(a.value, b.value)); }
inline Real operator*(Real a, Real b) { return a.with(a.ir->CreateFMul(a.value, b.value)); }
inline Real operator/(Real a, Real b) { return a.with(a.ir->CreateFDiv(a.value, b.value)); }
inline Real operator-(Real a) { return a.with(a.ir->CreateFNeg(a.value)); }
inline Real operator+(Real a, double b) { return a + a.of(b); }
inline Real operator-(Real a, double b) { return a - a.of(b); }
inline Real operator*(Real a, double b) { return a * a.of(b); }
inline Real operator/(double a, Real b) { return b.of(a) / b; }
inline Real operator-(double a, Real b) { return b.of(a) - b; }

// Comparisons are false for NaN, but for unequal().
inline llvm::Value* less(Real a, Real b) { return a.ir->CreateFCmpOLT(a.value, b.value); }
inline llvm::Value* less(Real a, double b) { return less(a, a.of(b)); }
inline llvm::Value* greater(Real a, Real b) { return less(b, a); }
inline llvm::Value* greater(Real a, double b) { return less(a.of(b), a); }
inline llvm::Value* equal(Real a, Real b) { return a.ir->CreateFCmpOEQ(a.value, b.value); }
inline llvm::Value* equal(Real a, double b) { return equal(a, a.of(b)); }
inline llvm::Value* unequal(Real a, Real b) { return a.ir->CreateFCmpUNE(a.value, b.value); }
inline llvm::Value* is_nan(Real a) { return a.ir->CreateFCmpUNO(a.value, a.value); }

inline Real select(llvm::Value* condition, Real a, Real b) {
  return a.with(a.ir->CreateSelect(condition, a.value, b.value));
}
inline Real select(llvm::Value* condition, double a, Real b) {
  return select(condition, b.of(a), b);
}

inline Real fma(Real a, Real b, Real c) {
  llvm::Value* result = a.ir->CreateIntrinsic(llvm::Intrinsic::fma, {a.value->getType()},
                                              {a.value, b.value, c.value});
  return a.with(result);
}
inline Real fma(Real a, double b, Real c) { return fma(a, a.of(b), c); }
inline Real fma(Real a, Real b, double c) { return fma(a, b, a.of(c)); }
inline Real abs(Real a) { return a.unary(llvm::Intrinsic::fabs); }
inline Real floor(Real a) { return a.unary(llvm::Intrinsic::floor); }
inline Real trunc(Real a) { return a.unary(llvm::Intrinsic::trunc); }
inline Real round_even(Real a) { return a.unary(llvm::Intrinsic::roundeven); }
inline Real sqrt(Real a) { return a.unary(llvm::Intrinsic::sqrt); }
inline Real copysign(Real magnitude, Real sign) {
  return magnitude.with(
      magnitude.ir->CreateBinaryIntrinsic(llvm::Intrinsic::copysign, magnitude.value, sign.value));
}

// Wider, for what f32 has not the digits for, and back.
inline Real to_f64(Real x) {
  if (x.is_f64()) return x;
  return x.with(
      x.ir->CreateFPExt(x.value, x.value->getType()->getWithNewType(x.ir->getDoubleTy())));
}
inline Real narrow_like(Real like, Real x) {
  if (like.is_f64()) return x;
  return x.with(x.ir->CreateFPTrunc(x.value, like.value->getType()));
}

// These give x where it is NaN, and are one instruction.
inline Real at_least(Real x, double bound) {
  return select(greater(x.of(bound), x), x.of(bound), x);
}
inline Real at_most(Real x, double bound) { return select(less(x.of(bound), x), x.of(bound), x); }

// c[0] + c[1] * x + c[2] * x^2 + ..., by Horner's rule.
inline Real polynomial(Real x, std::initializer_list<double> coefficients) {
  const double* c = coefficients.begin() + coefficients.size() - 1;
  Real sum = x.of(*c);
  while (c != coefficients.begin()) sum = fma(sum, x, *--c);
  return sum;
}

}  // namespace kiln::cpu
