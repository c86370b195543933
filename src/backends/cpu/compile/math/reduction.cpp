#include "backends/cpu/compile/math/reduction.h"

#include <array>
#include <limits>
#include <numbers>

#include <llvm/IR/Module.h>

namespace kiln::cpu {

using llvm::Value;

namespace {

using Builder = llvm::IRBuilder<>;

// pi / 2 in three parts.
constexpr double kHalfPi[] = {0x1.921fb54442d18p+0, 0x1.1a62633145c07p-54, -0x1.f1976b7ed8fbcp-110};

// Up to here the quotient has no more digits than the parts of pi / 2 allow for.
constexpr double kLargest = 0x1p30;

// 64 zeros, then the bits of 2 / pi behind the point.
constexpr std::array<uint64_t, 20> kTwoOverPi = {
    0x0000000000000000, 0xa2f9836e4e441529, 0xfc2757d1f534ddc0, 0xdb6295993c439041,
    0xfe5163abdebbc561, 0xb7246e3a424dd2e0, 0x06492eea09d1921c, 0xfe1deb1cb129a73e,
    0xe88235f52ebb4484, 0xe99c7026b45f7e41, 0x3991d639835339f4, 0x9c845f8bbdf9283b,
    0x1ff897ffde05980f, 0xef2f118b5a0a6d1f, 0x6d367ecf27cb09b7, 0x4f463f669e5fea2d,
    0x7527bac7ebe5f17b, 0x3d0739f78a5292ea, 0x6bfb5fb11f8d5d08, 0x56033046fc7b6bab};

Value* table(Builder& ir) {
  llvm::Module& module = *ir.GetInsertBlock()->getModule();
  const char* name = "two_over_pi";
  if (llvm::GlobalVariable* known = module.getNamedGlobal(name)) return known;
  llvm::Constant* words = llvm::ConstantDataArray::get(ir.getContext(), kTwoOverPi);
  auto* result = new llvm::GlobalVariable(module, words->getType(), true,
                                          llvm::GlobalValue::PrivateLinkage, words, name);
  result->setAlignment(llvm::Align(64));
  result->setDSOLocal(true);
  return result;
}

struct Reduced {
  Value* rest;
  Value* number;
};

// One number |x| >= 2^29, in integers: x = m * 2^e, and of 2 / pi the 192 bits from the one that is
// worth 2^(1 - e) on. Those before it make multiples of 4, those after it nothing that is seen.
class HugeAngle {
 public:
  explicit HugeAngle(Builder& ir) : ir_(ir) {}

  Reduced run(Value* x) {
    Value* bits = ir_.CreateBitCast(x, ir_.getInt64Ty());
    Value* quarter =
        product(bits);  // x * 2 / pi modulo 4, as 2 bits before and 126 behind the point
    Value* rounded = ir_.CreateAdd(quarter, one_shifted(125));
    Value* number = ir_.CreateTrunc(ir_.CreateLShr(rounded, 126), ir_.getInt64Ty());
    Value* fraction = ir_.CreateShl(quarter, 2);  // signed, in units of 2^-128
    Value* below = ir_.CreateIsNeg(fraction);
    Value* magnitude = ir_.CreateSelect(below, ir_.CreateNeg(fraction), fraction);
    Value* rest = times_half_pi(magnitude);
    Value* negative = ir_.CreateIsNeg(bits);
    Value* flip = ir_.CreateXor(below, negative);
    rest = ir_.CreateSelect(flip, ir_.CreateFNeg(rest), rest);
    return {rest, ir_.CreateSelect(negative, ir_.CreateNeg(number), number)};
  }

 private:
  Value* i64(uint64_t value) { return ir_.getInt64(value); }
  Value* wide(Value* value) { return ir_.CreateZExt(value, ir_.getInt128Ty()); }
  Value* one_shifted(unsigned by) {
    return llvm::ConstantInt::get(ir_.getContext(), llvm::APInt::getOneBitSet(128, by));
  }

  Value* word(Value* first, Value* shift, uint64_t index) {
    const auto load = [&](uint64_t i) {
      Value* place = ir_.CreateGEP(ir_.getInt64Ty(), table(ir_), ir_.CreateAdd(first, i64(i)));
      return ir_.CreateAlignedLoad(ir_.getInt64Ty(), place, llvm::Align(8));
    };
    return ir_.CreateIntrinsic(llvm::Intrinsic::fshl, {ir_.getInt64Ty()},
                               {load(index), load(index + 1), shift});
  }

  // The upper 128 bits of (m * the 192 bits) modulo 2^192.
  Value* product(Value* bits) {
    Value* exponent = ir_.CreateAnd(ir_.CreateLShr(bits, 52), i64(0x7ff));
    Value* mantissa =
        ir_.CreateOr(ir_.CreateAnd(bits, i64((uint64_t{1} << 52) - 1)), i64(uint64_t{1} << 52));
    Value* offset = ir_.CreateSub(exponent, i64(1075 - 62));
    Value* first = ir_.CreateLShr(offset, 6);
    Value* shift = ir_.CreateAnd(offset, i64(63));
    Value* m = wide(mantissa);
    Value* high = ir_.CreateShl(wide(ir_.CreateMul(mantissa, word(first, shift, 0))), 64);
    Value* middle = ir_.CreateMul(m, wide(word(first, shift, 1)));
    Value* low = ir_.CreateLShr(ir_.CreateMul(m, wide(word(first, shift, 2))), 64);
    return ir_.CreateAdd(high, ir_.CreateAdd(middle, low));
  }

  // magnitude * 2^-128 * pi / 2, from its leading 64 bits.
  Value* times_half_pi(Value* magnitude) {
    Value* zeros = ir_.CreateIntrinsic(llvm::Intrinsic::ctlz, {ir_.getInt128Ty()},
                                       {magnitude, ir_.getFalse()});
    Value* leading =
        ir_.CreateTrunc(ir_.CreateLShr(ir_.CreateShl(magnitude, zeros), 64), ir_.getInt64Ty());
    llvm::Type* f64 = ir_.getDoubleTy();
    const Real high(ir_, ir_.CreateSIToFP(ir_.CreateLShr(leading, 11), f64));
    const Real low(ir_, ir_.CreateSIToFP(ir_.CreateAnd(leading, i64(0x7ff)), f64));
    const Real part = low * 0x1p-11;
    const Real angle = fma(high, kHalfPi[0], fma(high, kHalfPi[1], part * kHalfPi[0]));
    // high has 53 bits before the point; the leading bit was worth 2^(-1 - zeros).
    Value* power = ir_.CreateSub(i64(1023 - 53), ir_.CreateTrunc(zeros, ir_.getInt64Ty()));
    return (angle * angle.from_bits(ir_.CreateShl(power, 52))).value;
  }

  Builder& ir_;
};

Value* lanes_of(Builder& ir, llvm::Type* type) {
  const auto* vector = llvm::dyn_cast<llvm::FixedVectorType>(type);
  return ir.getInt64(vector == nullptr ? 1 : vector->getNumElements());
}

// The huge ones among the lanes, one after the other, in memory.
Reduced reduce_huge_lanes(Real x, Reduced near) {
  Builder& ir = *x.ir;
  llvm::Function* function = ir.GetInsertBlock()->getParent();
  llvm::Type *f64 = ir.getDoubleTy(), *i64 = ir.getInt64Ty();
  llvm::BasicBlock& entry = function->getEntryBlock();
  Builder frame(&entry, entry.begin());
  Value* xs = frame.CreateAlloca(x.value->getType());
  Value* rests = frame.CreateAlloca(near.rest->getType());
  Value* numbers = frame.CreateAlloca(near.number->getType());
  ir.CreateStore(x.value, xs);
  ir.CreateStore(near.rest, rests);
  ir.CreateStore(near.number, numbers);
  llvm::BasicBlock* before = ir.GetInsertBlock();
  const auto block = [&](const char* name) {
    return llvm::BasicBlock::Create(ir.getContext(), name, function);
  };
  llvm::BasicBlock *lane = block("lane"), *huge = block("huge"), *next = block("next"),
                   *after = block("after");
  ir.CreateBr(lane);
  ir.SetInsertPoint(lane);
  llvm::PHINode* index = ir.CreatePHI(i64, 2);
  index->addIncoming(ir.getInt64(0), before);
  const Real one(ir, ir.CreateLoad(f64, ir.CreateGEP(f64, xs, index)));
  const double infinity = std::numeric_limits<double>::infinity();
  Value* is_huge = ir.CreateAnd(greater(abs(one), kLargest), less(abs(one), infinity));
  ir.CreateCondBr(is_huge, huge, next);
  ir.SetInsertPoint(huge);
  const Reduced reduced = HugeAngle(ir).run(one.value);
  ir.CreateStore(reduced.rest, ir.CreateGEP(f64, rests, index));
  ir.CreateStore(reduced.number, ir.CreateGEP(i64, numbers, index));
  ir.CreateBr(next);
  ir.SetInsertPoint(next);
  Value* following = ir.CreateAdd(index, ir.getInt64(1));
  index->addIncoming(following, next);
  ir.CreateCondBr(ir.CreateICmpULT(following, lanes_of(ir, x.value->getType())), lane, after);
  ir.SetInsertPoint(after);
  return {ir.CreateLoad(near.rest->getType(), rests),
          ir.CreateLoad(near.number->getType(), numbers)};
}

}  // namespace

Quadrant reduce_by_half_pi(Real x) {
  Builder& ir = *x.ir;
  const Real shifter = fma(x, 2 * std::numbers::inv_pi, x.of(0x1.8p52));
  const Real count = shifter - 0x1.8p52;
  Real rest = fma(-count, kHalfPi[1], fma(-count, kHalfPi[0], x));
  rest = fma(-count, kHalfPi[2], rest);
  const Reduced near{rest.value, shifter.bits()};

  Value* huge = greater(abs(x), kLargest);
  Value* any = huge->getType()->isVectorTy() ? ir.CreateOrReduce(huge) : huge;
  llvm::BasicBlock* start = ir.GetInsertBlock();
  auto* slow = llvm::BasicBlock::Create(ir.getContext(), "slow", start->getParent());
  auto* done = llvm::BasicBlock::Create(ir.getContext(), "done", start->getParent());
  ir.CreateCondBr(any, slow, done);
  ir.SetInsertPoint(slow);
  const Reduced far = reduce_huge_lanes(x, near);
  llvm::BasicBlock* end = ir.GetInsertBlock();
  ir.CreateBr(done);
  ir.SetInsertPoint(done);
  const auto choose = [&](Value* a, Value* b) {
    llvm::PHINode* phi = ir.CreatePHI(a->getType(), 2);
    phi->addIncoming(a, start);
    phi->addIncoming(b, end);
    return phi;
  };
  return {x.with(choose(near.rest, far.rest)), choose(near.number, far.number)};
}

}  // namespace kiln::cpu
