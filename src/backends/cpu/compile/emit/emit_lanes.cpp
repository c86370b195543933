// Integer arithmetic over the lanes of a vector: indices of gathers, and positions as values.
#include "backends/cpu/compile/emit/emit_expr.h"
#include "support/error.h"

namespace kiln::cpu {

using ir::AtomKind;
using ir::Dim;
using llvm::Value;

namespace {

bool fits_i32(const Dim& dim) {
  return dim.lower_bound() >= -(int64_t{1} << 31) && dim.upper_bound() < (int64_t{1} << 31);
}

// Every part of an index computation must fit, not only the result.
bool computable_in_i32(const Dim& dim) {
  for (const ir::Term& term : dim.terms()) {
    if (!fits_i32(dim_of_term(term))) return false;
    for (const ir::AtomPtr& factor : term.factors) {
      if (factor->kind != AtomKind::Symbol &&
          !(computable_in_i32(factor->a) && computable_in_i32(factor->b))) {
        return false;
      }
    }
  }
  return fits_i32(dim);
}

}  // namespace

Value* ExprEmitter::lane_indices(plan::BufferId buffer, const Offset& offset) {
  const auto& type = emitter_.program().buffers.at(static_cast<size_t>(buffer)).type;
  const bool small = fits_i32(type.elements()) && computable_in_i32(offset.linear);
  llvm::Type* integer = small ? ir_.getInt32Ty() : ir_.getInt64Ty();
  Value* sum = lane_values(offset.linear, integer);
  for (const auto& [expr, stride] : offset.dynamic) {
    Value* index =
        ir_.CreateSExtOrTrunc(node(expr), node(expr)->getType()->getWithNewType(integer));
    sum = ir_.CreateAdd(sum, ir_.CreateMul(widen(index), splat_dim(stride, integer)));
  }
  return sum;
}

Value* ExprEmitter::splat_dim(const Dim& dim, llvm::Type* integer) {
  return widen(ir_.CreateTrunc(emitter_.value_of(dim), integer));
}

Value* ExprEmitter::lane_values(const Dim& dim, llvm::Type* integer) {
  if (!dim.mentions(lanes_.index)) return splat_dim(dim, integer);
  if (integer->isIntegerTy(64) && computable_in_i32(dim)) {
    Value* narrow = lane_values(dim, ir_.getInt32Ty());
    return ir_.CreateSExt(narrow, narrow->getType()->getWithNewType(integer));
  }
  const auto linear = dim.as_linear_in(lanes_.index);
  if (linear && !linear->first.mentions(lanes_.index)) {
    std::vector<llvm::Constant*> steps;
    for (int i = 0; i < lanes_.count; ++i) {
      steps.push_back(llvm::ConstantInt::get(integer, static_cast<uint64_t>(i)));
    }
    Value* lane = llvm::ConstantVector::get(steps);
    return ir_.CreateAdd(splat_dim(dim, integer),
                         ir_.CreateMul(lane, splat_dim(linear->first, integer)));
  }
  Value* sum = nullptr;
  for (const ir::Term& term : dim.terms()) {
    Value* product = widen(llvm::ConstantInt::getSigned(integer, term.coefficient));
    for (const ir::AtomPtr& factor : term.factors) {
      product = ir_.CreateMul(product, lane_values_of_atom(factor, integer));
    }
    sum = sum == nullptr ? product : ir_.CreateAdd(sum, product);
  }
  return sum;
}

Value* ExprEmitter::lane_values_of_atom(const ir::AtomPtr& atom, llvm::Type* integer) {
  const Dim dim = dim_of_atom(atom);
  if (atom->kind == AtomKind::Symbol || !dim.mentions(lanes_.index)) {
    return lane_values(dim, integer);
  }
  if (atom->kind == AtomKind::FloorDiv || atom->kind == AtomKind::Mod) {
    return lane_division(*atom, integer);
  }
  const auto intrinsic =
      atom->kind == AtomKind::Min ? llvm::Intrinsic::smin : llvm::Intrinsic::smax;
  return ir_.CreateBinaryIntrinsic(intrinsic, lane_values(atom->a, integer),
                                   lane_values(atom->b, integer));
}

Value* ExprEmitter::lane_division(const ir::Atom& atom, llvm::Type* integer) {
  const bool quotient = atom.kind == AtomKind::FloorDiv;
  Value* a = lane_values(atom.a, integer);
  Value* b = lane_values(atom.b, integer);
  const bool positive = atom.a.lower_bound() >= 0 && atom.b.lower_bound() >= 1;
  if (positive && atom.b.is_constant()) {
    return quotient ? ir_.CreateUDiv(a, b) : ir_.CreateURem(a, b);
  }
  b = ir_.CreateSelect(ir_.CreateIsNull(b), llvm::ConstantInt::get(b->getType(), 1), b);
  Value* floored = nullptr;
  if (integer->isIntegerTy(32)) {
    // Exact: a quotient of two 32-bit integers that is no integer is far enough from the next one.
    llvm::Type* real = a->getType()->getWithNewType(ir_.getDoubleTy());
    Value* ratio = ir_.CreateFDiv(ir_.CreateSIToFP(a, real), ir_.CreateSIToFP(b, real));
    ratio = ir_.CreateUnaryIntrinsic(llvm::Intrinsic::floor, ratio);
    floored = ir_.CreateFPToSI(ratio, a->getType());
  } else {
    Value* truncated = ir_.CreateSDiv(a, b);
    Value* rest = ir_.CreateSub(a, ir_.CreateMul(truncated, b));
    Value* negative = ir_.CreateIsNeg(ir_.CreateXor(rest, b));
    Value* lower = ir_.CreateAnd(ir_.CreateIsNotNull(rest), negative);
    floored = ir_.CreateAdd(truncated, ir_.CreateSExt(lower, a->getType()));
  }
  return quotient ? floored : ir_.CreateSub(a, ir_.CreateMul(floored, b));
}

}  // namespace kiln::cpu
