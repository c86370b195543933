#include "backends/cpu/compile/nest/reducer.h"

#include <algorithm>
#include <limits>

#include <llvm/IR/IntrinsicsX86.h>

#include "backends/cpu/compile/emit/element.h"
#include "backends/cpu/compile/emit/operations.h"
#include "support/error.h"

namespace kiln::cpu {

using llvm::Value;
using plan::ReduceOp;

namespace {

llvm::Type* with_lanes(llvm::Type* scalar, int lanes) {
  if (lanes == 1) return scalar;
  return llvm::FixedVectorType::get(scalar, static_cast<unsigned>(lanes));
}

int lane_count(Value* value) {
  const auto* type = llvm::dyn_cast<llvm::FixedVectorType>(value->getType());
  return type == nullptr ? 1 : static_cast<int>(type->getNumElements());
}

}  // namespace

Value* Reducer::neutral(llvm::Type* type) const {
  const bool floating = is_floating(dtype_);
  const bool positive = dtype_ == DType::U8 || dtype_ == DType::Bool;
  const unsigned bits = type->getScalarSizeInBits();
  switch (op_) {
    case ReduceOp::Sum:
      return llvm::Constant::getNullValue(type);
    case ReduceOp::Prod:
      return floating ? llvm::ConstantFP::get(type, 1.0) : llvm::ConstantInt::get(type, 1);
    case ReduceOp::Max:
    case ReduceOp::ArgMax:
      if (floating) return llvm::ConstantFP::getInfinity(type, true);
      return llvm::ConstantInt::get(
          type, positive ? llvm::APInt::getZero(bits) : llvm::APInt::getSignedMinValue(bits));
    case ReduceOp::Min:
    case ReduceOp::ArgMin:
      if (floating) return llvm::ConstantFP::getInfinity(type, false);
      return llvm::ConstantInt::get(
          type, positive ? llvm::APInt::getMaxValue(bits) : llvm::APInt::getSignedMaxValue(bits));
  }
  throw InternalError("unknown reduction");
}

Value* Reducer::combine(Value* a, Value* b) const {
  const bool floating = is_floating(dtype_);
  switch (op_) {
    case ReduceOp::Sum:
      if (dtype_ == DType::Bool) return ir_.CreateOr(a, b);
      return floating ? ir_.CreateFAdd(a, b) : ir_.CreateAdd(a, b);
    case ReduceOp::Prod:
      if (dtype_ == DType::Bool) return ir_.CreateAnd(a, b);
      return floating ? ir_.CreateFMul(a, b) : ir_.CreateMul(a, b);
    case ReduceOp::Max:
      return emit_maximum(ir_, a, b, dtype_);
    case ReduceOp::Min:
      return emit_minimum(ir_, a, b, dtype_);
    default:
      throw InternalError("positions are not combined");
  }
}

Value* Reducer::beats(Value* a, Value* b) const {
  const bool max = op_ == ReduceOp::ArgMax;
  if (!is_floating(dtype_)) {
    const bool positive = dtype_ == DType::U8 || dtype_ == DType::Bool;
    if (max) return positive ? ir_.CreateICmpUGT(a, b) : ir_.CreateICmpSGT(a, b);
    return positive ? ir_.CreateICmpULT(a, b) : ir_.CreateICmpSLT(a, b);
  }
  Value* ordered = max ? ir_.CreateFCmpOGT(a, b) : ir_.CreateFCmpOLT(a, b);
  Value* a_nan = ir_.CreateFCmpUNO(a, a);
  Value* b_number = ir_.CreateFCmpORD(b, b);
  return ir_.CreateOr(ordered, ir_.CreateAnd(a_nan, b_number));
}

Reducer::State Reducer::initial(int lanes) const {
  Value* value = neutral(with_lanes(register_type(ir_, dtype_), lanes));
  if (!gives_position()) return {value};
  // A lane that never sees a value better than the neutral one stands at its own first position.
  if (lanes == 1) return {value, ir_.getInt64(0)};
  std::vector<llvm::Constant*> positions;
  for (int i = 0; i < lanes; ++i) positions.push_back(ir_.getInt64(static_cast<uint64_t>(i)));
  return {value, llvm::ConstantVector::get(positions)};
}

Reducer::State Reducer::initial_of_lanes(int lanes) const {
  State state = initial(lanes);
  if (gives_position()) state[1] = llvm::Constant::getNullValue(state[1]->getType());
  return state;
}

bool Reducer::is_product(const plan::Expr& value) const {
  if (plan::sums_byte_products(plan::Reduction{op_, {}, value})) return true;
  return op_ == ReduceOp::Sum && is_floating(dtype_) && value->kind == plan::ExprKind::Apply &&
         value->op == ir::Op::mul;
}

// Pairs of 16 bits: each factor is the lower half of a lane, and the upper half of one of them is 0.
Value* Reducer::multiply_add_bytes(const plan::Expr& value, Value* a, Value* b, Value* sum) const {
  const int lanes = lane_count(sum);
  const Target& target = emitter_.target();
  const bool has_upper_zero = std::ranges::any_of(value->args, [](const plan::Expr& factor) {
    return factor->op == ir::Op::cast && factor->args[0]->dtype == DType::U8;
  });
  if (lanes == 1 || lanes != target.lanes()) return ir_.CreateAdd(sum, ir_.CreateMul(a, b));
  if (!has_upper_zero) b = ir_.CreateAnd(b, llvm::ConstantInt::get(b->getType(), 0xFFFF));
  const bool has_sums =
      lanes == 16 ? target.has(Feature::Avx512Vnni) : target.has(Feature::AvxVnni);
  if (has_sums) {
    const auto product = lanes == 16 ? llvm::Intrinsic::x86_avx512_vpdpwssd_512
                                     : llvm::Intrinsic::x86_avx512_vpdpwssd_256;
    return ir_.CreateIntrinsic(product, {}, {sum, a, b});
  }
  const auto product =
      lanes == 16 ? llvm::Intrinsic::x86_avx512_pmaddw_d_512 : llvm::Intrinsic::x86_avx2_pmadd_wd;
  auto* halves = llvm::FixedVectorType::get(ir_.getInt16Ty(), static_cast<unsigned>(2 * lanes));
  return ir_.CreateAdd(
      sum, ir_.CreateIntrinsic(product, {},
                               {ir_.CreateBitCast(a, halves), ir_.CreateBitCast(b, halves)}));
}

Value* Reducer::multiply_add(const plan::Expr& value, Value* a, Value* b, Value* sum) const {
  if (dtype_ == DType::I32) return multiply_add_bytes(value, a, b, sum);
  return ir_.CreateIntrinsic(llvm::Intrinsic::fma, {a->getType()}, {a, b, sum});
}

Reducer::State Reducer::accumulate(const State& state, const plan::Expr& value,
                                   const ir::Dim& position, const Lanes& lanes,
                                   const Leaves& leaves) const {
  if (!gives_position()) {
    Value* next = nullptr;
    if (is_product(value)) {
      const std::vector<Value*> factors = emitter_.emit_all(value->args, lanes, leaves);
      next = multiply_add(value, factors[0], factors[1], state[0]);
    } else {
      next = combine(state[0], emitter_.emit(value, lanes, leaves));
    }
    return {lanes.mask == nullptr ? next : ir_.CreateSelect(lanes.mask, next, state[0])};
  }
  Value* candidate = emitter_.emit(value, lanes, leaves);
  Value* better = beats(candidate, state[0]);
  if (lanes.mask != nullptr) better = ir_.CreateAnd(better, lanes.mask);
  Value* place = emitter_.emit(plan::position(position), lanes);
  return {ir_.CreateSelect(better, candidate, state[0]), ir_.CreateSelect(better, place, state[1])};
}

Reducer::State Reducer::accumulate_all(const State& states, const std::vector<plan::Expr>& values,
                                       const Lanes& lanes) const {
  std::vector<plan::Expr> operands;
  for (const plan::Expr& value : values) {
    if (is_product(value)) {
      operands.insert(operands.end(), value->args.begin(), value->args.end());
    } else {
      operands.push_back(value);
    }
  }
  const std::vector<Value*> emitted = emitter_.emit_all(operands, lanes, Leaves());
  State next;
  size_t at = 0;
  for (size_t i = 0; i < values.size(); ++i) {
    if (is_product(values[i])) {
      next.push_back(multiply_add(values[i], emitted[at], emitted[at + 1], states[i]));
      at += 2;
    } else {
      next.push_back(combine(states[i], emitted[at++]));
    }
  }
  return next;
}

Reducer::State Reducer::join(const State& a, const State& b) const {
  if (!gives_position()) return {combine(a[0], b[0])};
  // The earlier position wins among equals.
  Value* better = beats(b[0], a[0]);
  Value* worse = beats(a[0], b[0]);
  Value* equal = ir_.CreateNot(ir_.CreateOr(better, worse));
  Value* take = ir_.CreateOr(better, ir_.CreateAnd(equal, ir_.CreateICmpSLT(b[1], a[1])));
  return {ir_.CreateSelect(take, b[0], a[0]), ir_.CreateSelect(take, b[1], a[1])};
}

Reducer::State Reducer::join_each(const State& a, const State& b) const {
  State joined;
  for (size_t i = 0; i < a.size(); ++i) joined.push_back(combine(a[i], b[i]));
  return joined;
}

Reducer::State Reducer::join_lanes(State state) const {
  for (int lanes = lane_count(state[0]); lanes > 1; lanes /= 2) {
    std::vector<int> low, high;
    for (int i = 0; i < lanes / 2; ++i) {
      low.push_back(i);
      high.push_back(lanes / 2 + i);
    }
    State a, b;
    for (Value* value : state) {
      a.push_back(ir_.CreateShuffleVector(value, low));
      b.push_back(ir_.CreateShuffleVector(value, high));
    }
    state = join(a, b);
  }
  for (Value*& value : state) value = ir_.CreateExtractElement(value, uint64_t{0});
  return state;
}

}  // namespace kiln::cpu
