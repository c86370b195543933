#include "backends/cpu/compile/emit/element.h"

#include <llvm/IR/IntrinsicsX86.h>
#include <llvm/IR/PatternMatch.h>

#include "backends/cpu/compile/emit/target.h"
#include "support/error.h"

namespace kiln::cpu {

using llvm::Value;

namespace {

llvm::Type* with_width(Value* like, llvm::Type* scalar) {
  return like->getType()->getWithNewType(scalar);
}

bool is_unsigned(DType dtype) { return dtype == DType::U8 || dtype == DType::Bool; }

constexpr const char* kDenormalsAreZero = "kiln-denormals-are-zero";

// One instruction of AVX512-BF16, which takes denormal numbers as zero. Null: there is none.
Value* round_vector_to_bf16(llvm::IRBuilder<>& ir, Value* value) {
  constexpr unsigned kLanes = 16;
  const auto* type = llvm::dyn_cast<llvm::FixedVectorType>(value->getType());
  const bool fits = type != nullptr && type->getNumElements() == kLanes;
  if (!fits || !has_feature(ir, Feature::Avx512Bf16) ||
      !ir.GetInsertBlock()->getParent()->hasFnAttribute(kDenormalsAreZero))
    return nullptr;
  Value* rounded =
      ir.CreateIntrinsic(llvm::Intrinsic::x86_avx512bf16_cvtneps2bf16_512, {}, {value});
  return ir.CreateBitCast(rounded, with_width(value, ir.getInt16Ty()));
}

// fptrunc to bfloat would call a library without AVX512-BF16: round to nearest even in integers.
Value* float_to_bf16_bits(llvm::IRBuilder<>& ir, Value* value) {
  // What was such bits, just now or in memory, is not rounded again.
  namespace matching = llvm::PatternMatch;
  Value* known = nullptr;
  if (matching::match(
          value, matching::m_BitCast(matching::m_Shl(matching::m_ZExt(matching::m_Value(known)),
                                                     matching::m_SpecificInt(16)))) &&
      known->getType()->getScalarType()->isIntegerTy(16))
    return known;
  if (Value* rounded = round_vector_to_bf16(ir, value)) return rounded;
  llvm::Type* wide = with_width(value, ir.getInt32Ty());
  auto constant = [&](uint32_t bits) { return llvm::ConstantInt::get(wide, bits); };
  Value* bits = ir.CreateBitCast(value, wide);
  Value* high = ir.CreateLShr(bits, constant(16));
  Value* odd = ir.CreateAnd(high, constant(1));
  Value* sum = ir.CreateAdd(bits, ir.CreateAdd(odd, constant(0x7FFF)));
  Value* quiet_nan = ir.CreateOr(high, constant(0x40));
  Value* is_nan = ir.CreateFCmpUNO(value, value);
  Value* result = ir.CreateSelect(is_nan, quiet_nan, ir.CreateLShr(sum, constant(16)));
  return ir.CreateTrunc(result, with_width(value, ir.getInt16Ty()));
}

Value* bf16_bits_to_float(llvm::IRBuilder<>& ir, Value* bits) {
  Value* wide = ir.CreateZExt(bits, with_width(bits, ir.getInt32Ty()));
  return ir.CreateBitCast(ir.CreateShl(wide, 16), with_width(bits, ir.getFloatTy()));
}

// Codes as f16 first: that has room for all values, where the exponent is worth 2^8 less.
Value* f8e4m3_bits_to_float(llvm::IRBuilder<>& ir, Value* code) {
  const auto constant = [&](uint64_t bits) {
    return llvm::ConstantInt::get(with_width(code, ir.getInt16Ty()), bits);
  };
  Value* wide = ir.CreateZExt(code, with_width(code, ir.getInt16Ty()));
  Value* magnitude = ir.CreateAnd(wide, constant(0x7F));
  Value* is_nan = ir.CreateICmpEQ(magnitude, constant(0x7F));
  Value* half = ir.CreateSelect(is_nan, constant(0x7E00), ir.CreateShl(magnitude, 7));
  half = ir.CreateOr(half, ir.CreateShl(ir.CreateAnd(wide, constant(0x80)), 8));
  half = ir.CreateBitCast(half, with_width(code, ir.getHalfTy()));
  Value* value = ir.CreateFPExt(half, with_width(code, ir.getFloatTy()));
  return ir.CreateFMul(value, llvm::ConstantFP::get(value->getType(), 256.0));
}

// As f32_to_f8e4m3 does it.
Value* float_to_f8e4m3_bits(llvm::IRBuilder<>& ir, Value* value) {
  llvm::Type* wide = with_width(value, ir.getInt32Ty());
  const auto constant = [&](uint64_t bits) { return llvm::ConstantInt::get(wide, bits); };
  Value* bits = ir.CreateBitCast(value, wide);
  Value* sign = ir.CreateAnd(ir.CreateLShr(bits, constant(24)), constant(0x80));
  Value* magnitude = ir.CreateAnd(bits, constant(0x7FFFFFFF));
  Value* shifted = ir.CreateFAdd(ir.CreateBitCast(magnitude, value->getType()),
                                 llvm::ConstantFP::get(value->getType(), 0x1p14));
  Value* subnormal = ir.CreateSub(ir.CreateBitCast(shifted, wide), constant(0x46800000));
  Value* odd = ir.CreateAnd(ir.CreateLShr(magnitude, constant(20)), constant(1));
  Value* rounded = ir.CreateAdd(ir.CreateAdd(magnitude, constant(0x7FFFF)), odd);
  Value* normal = ir.CreateLShr(ir.CreateSub(rounded, constant(0x3C000000)), constant(20));
  Value* is_small = ir.CreateICmpULT(magnitude, constant(0x3C800000));
  Value* code = ir.CreateSelect(is_small, subnormal, normal);
  Value* is_large = ir.CreateICmpUGE(magnitude, constant(0x43E00000));
  code = ir.CreateSelect(is_large, constant(0x7E), code);
  Value* is_nan = ir.CreateICmpUGT(magnitude, constant(0x7F800000));
  code = ir.CreateSelect(is_nan, constant(0x7F), code);
  return ir.CreateTrunc(ir.CreateOr(code, sign), with_width(value, ir.getInt8Ty()));
}

// As ir::to_integer says. The low bits of an f32 that is too large for 32 bits are 0 either way.
Value* float_to_integer(llvm::IRBuilder<>& ir, Value* value, DType from, DType to) {
  if (to == DType::I64) return ir.CreateFPToSI(value, with_width(value, ir.getInt64Ty()));
  const bool is_long = to == DType::U8 && from == DType::F64;
  llvm::Type* type = is_long ? ir.getInt64Ty() : ir.getInt32Ty();
  Value* wide = ir.CreateFPToSI(value, with_width(value, type));
  return ir.CreateTrunc(wide, with_width(value, register_type(ir, to)));
}

}  // namespace

void take_denormals_as_zero(llvm::Function& function) { function.addFnAttr(kDenormalsAreZero); }

llvm::Type* register_type(llvm::IRBuilder<>& ir, DType dtype) {
  switch (dtype) {
    case DType::F32:
    case DType::F16:
    case DType::BF16:
    case DType::F8E4M3:
      return ir.getFloatTy();
    case DType::F64:
      return ir.getDoubleTy();
    case DType::Bool:
      return ir.getInt1Ty();
    default:
      return ir.getIntNTy(static_cast<unsigned>(dtype_size(dtype) * 8));
  }
}

llvm::Type* memory_type(llvm::IRBuilder<>& ir, DType dtype) {
  switch (dtype) {
    case DType::F16:
      return ir.getHalfTy();
    case DType::BF16:
      return ir.getInt16Ty();
    case DType::Bool:
    case DType::F8E4M3:
      return ir.getInt8Ty();
    default:
      return register_type(ir, dtype);
  }
}

Value* from_memory(llvm::IRBuilder<>& ir, Value* value, DType dtype) {
  switch (dtype) {
    case DType::F16:
      return ir.CreateFPExt(value, with_width(value, ir.getFloatTy()));
    case DType::BF16:
      return bf16_bits_to_float(ir, value);
    case DType::F8E4M3:
      return f8e4m3_bits_to_float(ir, value);
    case DType::Bool:
      return ir.CreateIsNotNull(value);
    default:
      return value;
  }
}

Value* to_memory(llvm::IRBuilder<>& ir, Value* value, DType dtype) {
  switch (dtype) {
    case DType::F16:
      return ir.CreateFPTrunc(value, with_width(value, ir.getHalfTy()));
    case DType::BF16:
      return float_to_bf16_bits(ir, value);
    case DType::F8E4M3:
      return float_to_f8e4m3_bits(ir, value);
    case DType::Bool:
      return ir.CreateZExt(value, with_width(value, ir.getInt8Ty()));
    default:
      return value;
  }
}

namespace {

llvm::Type* of_lanes(llvm::Type* scalar, int lanes) {
  if (lanes == 1) return scalar;
  return llvm::FixedVectorType::get(scalar, static_cast<unsigned>(lanes));
}

int lanes_of(const Value* mask) {
  return static_cast<int>(llvm::cast<llvm::FixedVectorType>(mask->getType())->getNumElements());
}

llvm::Align aligned(int64_t alignment, int64_t bytes) {
  return llvm::Align(static_cast<uint64_t>(alignment == 0 ? bytes : alignment));
}

}  // namespace

llvm::Type* ElementFormat::register_type(llvm::IRBuilder<>& ir, int lanes) const {
  return of_lanes(cpu::register_type(ir, dtype_), lanes);
}

llvm::Type* ElementFormat::memory_type(llvm::IRBuilder<>& ir, int lanes) const {
  return of_lanes(cpu::memory_type(ir, dtype_), lanes);
}

Value* ElementFormat::load(llvm::IRBuilder<>& ir, Value* address, int lanes,
                           int64_t alignment) const {
  Value* raw = ir.CreateAlignedLoad(memory_type(ir, lanes), address, aligned(alignment, bytes()));
  return from_memory(ir, raw, dtype_);
}

void ElementFormat::store(llvm::IRBuilder<>& ir, Value* value, Value* address,
                          int64_t alignment) const {
  ir.CreateAlignedStore(to_memory(ir, value, dtype_), address, aligned(alignment, bytes()));
}

Value* ElementFormat::load_masked(llvm::IRBuilder<>& ir, Value* address, Value* mask) const {
  llvm::Type* type = memory_type(ir, lanes_of(mask));
  Value* raw = ir.CreateMaskedLoad(type, address, aligned(0, bytes()), mask,
                                   llvm::Constant::getNullValue(type));
  return from_memory(ir, raw, dtype_);
}

void ElementFormat::store_masked(llvm::IRBuilder<>& ir, Value* value, Value* address,
                                 Value* mask) const {
  ir.CreateMaskedStore(to_memory(ir, value, dtype_), address, aligned(0, bytes()), mask);
}

Value* round_to(llvm::IRBuilder<>& ir, Value* value, DType to) {
  if (!is_16_bit_float(to) && to != DType::F8E4M3) return value;
  return from_memory(ir, to_memory(ir, value, to), to);
}

Value* convert(llvm::IRBuilder<>& ir, Value* value, DType from, DType to) {
  if (from == to) return value;
  llvm::Type* type = with_width(value, register_type(ir, to));
  if (is_floating(from)) {
    if (to == DType::Bool) {
      return ir.CreateFCmpUNE(value, llvm::ConstantFP::getZero(value->getType()));
    }
    if (!is_floating(to)) return float_to_integer(ir, value, from, to);
    return round_to(ir, ir.CreateFPCast(value, type), to);
  }
  if (to == DType::Bool) return ir.CreateIsNotNull(value);
  if (is_floating(to)) {
    Value* real = is_unsigned(from) ? ir.CreateUIToFP(value, type) : ir.CreateSIToFP(value, type);
    return round_to(ir, real, to);
  }
  return ir.CreateIntCast(value, type, !is_unsigned(from));
}

}  // namespace kiln::cpu
