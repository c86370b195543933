#include "backends/cpu/compile/emit/operations.h"

#include <limits>

#include "backends/cpu/compile/emit/element.h"
#include "backends/cpu/compile/math/math.h"
#include "support/error.h"

namespace kiln::cpu {

using ir::Op;
using llvm::Value;

namespace {

using Builder = llvm::IRBuilder<>;

Value* zero_like(Value* value) { return llvm::Constant::getNullValue(value->getType()); }

Value* integer_like(Value* value, int64_t number) {
  return llvm::ConstantInt::getSigned(value->getType(), number);
}

bool is_unsigned(DType dtype) { return dtype == DType::U8 || dtype == DType::Bool; }

[[noreturn]] void unsupported(const plan::ExprNode& node) {
  throw InternalError("[" + std::string(op_name(node.op)) + "] no code for operands of " +
                      std::string(dtype_name(node.args.at(0)->dtype)));
}

// --- Floating point -----------------------------------------------------------------------------

Real emit_sign(Real x) {
  const Real one = copysign(x.of(1.0), x);
  // Zeros and NaN are their own sign.
  return select(greater(abs(x), 0.0), one, x);
}

Value* infinite(Real x) { return equal(abs(x), std::numeric_limits<double>::infinity()); }

// The elementary functions of one operand.
struct Elementary {
  Op op;
  Real (*emit)(Real x);
};

constexpr Elementary kElementary[] = {
    {Op::exp, emit_exp},     {Op::exp2, emit_exp2},   {Op::expm1, emit_expm1},
    {Op::log, emit_log},     {Op::log2, emit_log2},   {Op::log10, emit_log10},
    {Op::log1p, emit_log1p}, {Op::sin, emit_sin},     {Op::cos, emit_cos},
    {Op::tan, emit_tan},     {Op::asin, emit_asin},   {Op::acos, emit_acos},
    {Op::sinh, emit_sinh},   {Op::cosh, emit_cosh},   {Op::tanh, emit_tanh},
    {Op::asinh, emit_asinh}, {Op::acosh, emit_acosh}, {Op::atanh, emit_atanh},
    {Op::erf, emit_erf},     {Op::erfc, emit_erfc},   {Op::sigmoid, emit_sigmoid},
};

// Functions of which f32 has more digits than a result of 16 bits keeps; null: another op.
Value* rough_unary(const plan::ExprNode& node, Real x) {
  switch (node.op) {
    case Op::sigmoid:
      return (1.0 / (emit_exp_for_16_bits(-x) + 1.0)).value;
    case Op::silu:
      return (x / (emit_exp_for_16_bits(-x) + 1.0)).value;
    case Op::gelu:
      return emit_gelu_for_16_bits(x, node.gelu_tanh).value;
    default:
      return nullptr;
  }
}

// Null: not a floating unary op.
Value* floating_unary(const plan::ExprNode& node, Real x) {
  if (is_16_bit_float(node.dtype)) {
    if (Value* rough = rough_unary(node, x)) return rough;
  }
  for (const auto& [op, emit] : kElementary) {
    if (op == node.op) return emit(x).value;
  }
  switch (node.op) {
    case Op::neg:
      return (-x).value;
    case Op::abs:
      return abs(x).value;
    case Op::sign:
      return emit_sign(x).value;
    case Op::sqrt:
      return sqrt(x).value;
    case Op::rsqrt:
      return (1.0 / sqrt(x)).value;
    case Op::reciprocal:
      return (1.0 / x).value;
    case Op::relu:
      return at_least(x, 0.0).value;
    case Op::silu:
      return (x / (emit_exp(-x) + 1.0)).value;
    case Op::gelu:
      return emit_gelu(x, node.gelu_tanh).value;
    case Op::floor:
      return floor(x).value;
    case Op::ceil:
      return x.unary(llvm::Intrinsic::ceil).value;
    case Op::round:
      return round_even(x).value;
    case Op::trunc:
      return trunc(x).value;
    case Op::isnan:
      return is_nan(x);
    case Op::isinf:
      return infinite(x);
    case Op::logical_not:
      return equal(x, 0.0);
    default:
      return nullptr;
  }
}

// x^n for the exponents that models use.
Value* power_of_constant(Real x, const plan::ExprNode& exponent) {
  if (exponent.kind != plan::ExprKind::Constant) return nullptr;
  const double n = exponent.number;
  if (n == 1) return x.value;
  if (n == 2) return (x * x).value;
  if (n == 3) return (x * x * x).value;
  if (n == 4) return ((x * x) * (x * x)).value;
  if (n == -1) return (1.0 / x).value;
  if (n == -2) return (1.0 / (x * x)).value;
  // Minus infinity and minus zero to the power 1/2 are positive.
  if (n == 0.5) {
    return select(infinite(x), std::numeric_limits<double>::infinity(), sqrt(x + 0.0)).value;
  }
  if (n == -0.5) return select(infinite(x), 0.0, 1.0 / sqrt(x + 0.0)).value;
  return nullptr;
}

Value* floating_binary(const plan::ExprNode& node, Real a, Real b) {
  Builder& ir = *a.ir;
  const DType dtype = node.args[0]->dtype;
  switch (node.op) {
    case Op::add:
      return (a + b).value;
    case Op::sub:
      return (a - b).value;
    case Op::mul:
      return (a * b).value;
    case Op::div:
      return (a / b).value;
    case Op::floor_div:
      return emit_floor_div(a, b).value;
    case Op::remainder:
      return emit_remainder(a, b).value;
    case Op::fmod:
      return emit_fmod(a, b).value;
    case Op::atan2:
      return emit_atan2(a, b).value;
    case Op::hypot:
      return emit_hypot(a, b).value;
    case Op::maximum:
      return emit_maximum(ir, a.value, b.value, dtype);
    case Op::minimum:
      return emit_minimum(ir, a.value, b.value, dtype);
    case Op::eq:
      return equal(a, b);
    case Op::ne:
      return unequal(a, b);
    case Op::lt:
      return less(a, b);
    case Op::le:
      return ir.CreateFCmpOLE(a.value, b.value);
    case Op::gt:
      return greater(a, b);
    case Op::ge:
      return ir.CreateFCmpOGE(a.value, b.value);
    case Op::pow: {
      Value* simple = power_of_constant(a, *node.args[1]);
      return simple != nullptr ? simple : emit_pow(a, b).value;
    }
    default:
      return nullptr;
  }
}

// --- Integers -----------------------------------------------------------------------------------

struct Division {
  Value* quotient;
  Value* rest;
};

// Vectors of small integers divide exactly in floating point: a quotient that is no integer is far
// enough from the next one. Null: divide as integers.
Value* quotient_by_floats(Builder& ir, Value* a, Value* b, DType dtype) {
  if (!a->getType()->isVectorTy() || dtype == DType::I64) return nullptr;
  llvm::Type* real = dtype == DType::I32 ? ir.getDoubleTy() : ir.getFloatTy();
  llvm::Type* type = a->getType()->getWithNewType(real);
  const bool positive = is_unsigned(dtype);
  Value* x = positive ? ir.CreateUIToFP(a, type) : ir.CreateSIToFP(a, type);
  Value* y = positive ? ir.CreateUIToFP(b, type) : ir.CreateSIToFP(b, type);
  Value* quotient =
      ir.CreateFPToSI(ir.CreateFDiv(x, y), a->getType()->getWithNewType(ir.getInt32Ty()));
  return ir.CreateTrunc(quotient, a->getType());
}

// Truncating. By zero: quotient and rest are 0. Minimum by -1: wraps around. Nothing traps.
Division divide(Builder& ir, Value* a, Value* b, DType dtype) {
  Value* one = integer_like(b, 1);
  Value* by_zero = ir.CreateIsNull(b);
  Value* divisor = ir.CreateSelect(by_zero, one, b);
  Value* minus_one = is_unsigned(dtype) ? nullptr : ir.CreateICmpEQ(b, integer_like(b, -1));
  if (minus_one != nullptr) divisor = ir.CreateSelect(minus_one, one, divisor);
  Value* quotient = quotient_by_floats(ir, a, divisor, dtype);
  if (quotient == nullptr) {
    quotient = is_unsigned(dtype) ? ir.CreateUDiv(a, divisor) : ir.CreateSDiv(a, divisor);
  }
  Value* rest = ir.CreateSub(a, ir.CreateMul(quotient, divisor));
  if (minus_one != nullptr) quotient = ir.CreateSelect(minus_one, ir.CreateNeg(a), quotient);
  return {ir.CreateSelect(by_zero, zero_like(a), quotient), rest};
}

Division divide_flooring(Builder& ir, Value* a, Value* b, DType dtype) {
  const auto [quotient, rest] = divide(ir, a, b, dtype);
  if (is_unsigned(dtype)) return {quotient, rest};
  Value* differ = ir.CreateIsNeg(ir.CreateXor(rest, b));
  Value* lower = ir.CreateAnd(ir.CreateIsNotNull(rest), differ);
  return {ir.CreateSelect(lower, ir.CreateSub(quotient, integer_like(a, 1)), quotient),
          ir.CreateSelect(lower, ir.CreateAdd(rest, b), rest)};
}

// By squaring; wraps around. A negative exponent gives 0 unless the base is 1 or -1. Unrolled: code
// that is hoisted has no room for loops.
Value* integer_power(Builder& ir, Value* base, Value* exponent, DType dtype) {
  Value* one = integer_like(base, 1);
  Value* result = one;
  Value* square = base;
  Value* bits = exponent;
  for (size_t bit = 0; bit < dtype_size(dtype) * 8; ++bit) {
    if (const auto* known = llvm::dyn_cast<llvm::Constant>(bits); known && known->isZeroValue())
      break;
    Value* odd = ir.CreateTrunc(bits, base->getType()->getWithNewType(ir.getInt1Ty()));
    result = ir.CreateSelect(odd, ir.CreateMul(result, square), result);
    square = ir.CreateMul(square, square);
    bits = ir.CreateLShr(bits, 1);
  }
  if (is_unsigned(dtype)) return result;
  Value* minus_one = integer_like(base, -1);
  Value* unit = ir.CreateOr(ir.CreateICmpEQ(base, one), ir.CreateICmpEQ(base, minus_one));
  Value* vanishes = ir.CreateAnd(ir.CreateIsNeg(exponent), ir.CreateNot(unit));
  return ir.CreateSelect(vanishes, zero_like(base), result);
}

Value* integer_unary(Builder& ir, const plan::ExprNode& node, Value* x) {
  const DType dtype = node.args[0]->dtype;
  switch (node.op) {
    case Op::neg:
      return ir.CreateNeg(x);
    case Op::abs:
      return is_unsigned(dtype) ? x
                                : ir.CreateBinaryIntrinsic(llvm::Intrinsic::abs, x, ir.getFalse());
    case Op::sign: {
      Value* positive = ir.CreateZExt(ir.CreateIsNotNull(x), x->getType());
      return is_unsigned(dtype) ? positive
                                : ir.CreateSelect(ir.CreateIsNeg(x), integer_like(x, -1), positive);
    }
    case Op::relu:
      if (is_unsigned(dtype)) return x;
      return ir.CreateBinaryIntrinsic(llvm::Intrinsic::smax, x, zero_like(x));
    case Op::floor:
    case Op::ceil:
    case Op::round:
    case Op::trunc:
      return x;
    case Op::isnan:
    case Op::isinf:
      return llvm::Constant::getNullValue(x->getType()->getWithNewType(ir.getInt1Ty()));
    case Op::logical_not:
      return ir.CreateIsNull(x);
    case Op::bitwise_not:
      return ir.CreateNot(x);
    default:
      return nullptr;
  }
}

Value* integer_comparison(Builder& ir, const plan::ExprNode& node, Value* a, Value* b) {
  using P = llvm::CmpInst::Predicate;
  const bool positive = is_unsigned(node.args[0]->dtype);
  switch (node.op) {
    case Op::eq:
      return ir.CreateICmpEQ(a, b);
    case Op::ne:
      return ir.CreateICmpNE(a, b);
    case Op::lt:
      return ir.CreateICmp(positive ? P::ICMP_ULT : P::ICMP_SLT, a, b);
    case Op::le:
      return ir.CreateICmp(positive ? P::ICMP_ULE : P::ICMP_SLE, a, b);
    case Op::gt:
      return ir.CreateICmp(positive ? P::ICMP_UGT : P::ICMP_SGT, a, b);
    case Op::ge:
      return ir.CreateICmp(positive ? P::ICMP_UGE : P::ICMP_SGE, a, b);
    default:
      return nullptr;
  }
}

Value* integer_binary(Builder& ir, const plan::ExprNode& node, Value* a, Value* b) {
  const DType dtype = node.args[0]->dtype;
  const bool logical = dtype == DType::Bool;
  switch (node.op) {
    case Op::add:
      return logical ? ir.CreateOr(a, b) : ir.CreateAdd(a, b);
    case Op::sub:
      return ir.CreateSub(a, b);
    case Op::mul:
      return logical ? ir.CreateAnd(a, b) : ir.CreateMul(a, b);
    case Op::div:
      return divide(ir, a, b, dtype).quotient;
    case Op::fmod:
      return divide(ir, a, b, dtype).rest;
    case Op::floor_div:
      return divide_flooring(ir, a, b, dtype).quotient;
    case Op::remainder:
      return divide_flooring(ir, a, b, dtype).rest;
    case Op::pow:
      return integer_power(ir, a, b, dtype);
    case Op::maximum:
      return emit_maximum(ir, a, b, dtype);
    case Op::minimum:
      return emit_minimum(ir, a, b, dtype);
    case Op::bitwise_and:
      return ir.CreateAnd(a, b);
    case Op::bitwise_or:
      return ir.CreateOr(a, b);
    case Op::bitwise_xor:
      return ir.CreateXor(a, b);
    default:
      return integer_comparison(ir, node, a, b);
  }
}

// Bool arithmetic that is not logical happens in bytes.
Value* through_bytes(Builder& ir, const plan::ExprNode& node, Value* a, Value* b) {
  llvm::Type* byte = a->getType()->getWithNewType(ir.getInt8Ty());
  a = ir.CreateZExt(a, byte);
  b = ir.CreateZExt(b, byte);
  return ir.CreateIsNotNull(integer_binary(ir, node, a, b));
}

bool divides(Op op) {
  return op == Op::div || op == Op::fmod || op == Op::floor_div || op == Op::remainder ||
         op == Op::pow;
}

// The larger (smaller) of two numbers; b if it is NaN, NaN if a is.
Value* floating_extreme(Builder& ir, Value* a, Value* b, Value* a_wins) {
  Value* chosen = ir.CreateSelect(a_wins, a, b);
  return ir.CreateSelect(ir.CreateFCmpUNO(a, a), a, chosen);
}

// The same for a constant b, in one instruction: a wins where neither is larger, so that NaN stays.
bool is_number(const Value* b) {
  const auto* constant = llvm::dyn_cast<llvm::Constant>(b);
  if (constant == nullptr) return false;
  if (constant->getType()->isVectorTy()) constant = constant->getSplatValue();
  const auto* number = llvm::dyn_cast_or_null<llvm::ConstantFP>(constant);
  return number != nullptr && !number->isNaN();
}

}  // namespace

Value* emit_maximum(Builder& ir, Value* a, Value* b, DType dtype) {
  if (is_floating(dtype) && is_number(b)) return ir.CreateSelect(ir.CreateFCmpOGT(b, a), b, a);
  if (is_floating(dtype)) return floating_extreme(ir, a, b, ir.CreateFCmpOGT(a, b));
  if (dtype == DType::Bool) return ir.CreateOr(a, b);
  const auto id = is_unsigned(dtype) ? llvm::Intrinsic::umax : llvm::Intrinsic::smax;
  return ir.CreateBinaryIntrinsic(id, a, b);
}

Value* emit_minimum(Builder& ir, Value* a, Value* b, DType dtype) {
  if (is_floating(dtype) && is_number(b)) return ir.CreateSelect(ir.CreateFCmpOLT(b, a), b, a);
  if (is_floating(dtype)) return floating_extreme(ir, a, b, ir.CreateFCmpOLT(a, b));
  if (dtype == DType::Bool) return ir.CreateAnd(a, b);
  const auto id = is_unsigned(dtype) ? llvm::Intrinsic::umin : llvm::Intrinsic::smin;
  return ir.CreateBinaryIntrinsic(id, a, b);
}

Value* emit_operation(Builder& ir, const plan::ExprNode& node, const std::vector<Value*>& args) {
  if (node.op == Op::where) return ir.CreateSelect(args[0], args[1], args[2]);
  const DType dtype = node.args.at(0)->dtype;
  if (node.op == Op::cast) {
    Value* x = plan::is_rounded(node.args[0]) ? args[0] : round_to(ir, args[0], dtype);
    return convert(ir, x, dtype, node.dtype);
  }
  Value* result = nullptr;
  if (is_floating(dtype)) {
    const Real a(ir, args[0]);
    result = args.size() == 1 ? floating_unary(node, a) : floating_binary(node, a, {ir, args[1]});
  } else if (args.size() == 1) {
    result = integer_unary(ir, node, args[0]);
  } else if (dtype == DType::Bool && divides(node.op)) {
    result = through_bytes(ir, node, args[0], args[1]);
  } else {
    result = integer_binary(ir, node, args[0], args[1]);
  }
  if (result == nullptr) unsupported(node);
  return result;
}

}  // namespace kiln::cpu
