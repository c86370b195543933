#include "backends/cpu/compile/emit/emit_expr.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include <llvm/IR/IntrinsicsX86.h>

#include "backends/common/constant_magnitude.h"
#include "backends/cpu/compile/emit/element.h"
#include "backends/cpu/compile/emit/operations.h"
#include "plan/form/access.h"
#include "support/error.h"

namespace kiln::cpu {

using ir::Dim;
using llvm::Value;
using plan::Expr;
using plan::ExprKind;
using plan::ExprNode;

namespace {

Value* constant_value(llvm::IRBuilder<>& ir, const ExprNode& node) {
  llvm::Type* type = register_type(ir, node.dtype);
  if (is_floating(node.dtype)) return llvm::ConstantFP::get(type, node.number);
  return llvm::ConstantInt::get(type, static_cast<uint64_t>(node.integer), true);
}

// Lanes of a quantisation in integers, whose division takes longer than what stands for it.
constexpr int kLongDivision = 16;
// Well within i32, with room for a zero point.
constexpr double kLargestConverted = 0x1p30;
constexpr double kUnknown = std::numeric_limits<double>::infinity();

bool is_apply(const Expr& expr, ir::Op op) {
  return expr->kind == ExprKind::Apply && expr->op == op;
}

// exp(x - r) with r out of a reduction.
bool is_softmax_term(const Expr& expr) {
  return is_apply(expr, ir::Op::exp) && is_apply(expr->args[0], ir::Op::sub) &&
         expr->args[0]->args[1]->kind == ExprKind::Reduced;
}

}  // namespace

Value* Emitter::emit(const Expr& expr, const Lanes& lanes, const Leaves& leaves) {
  return ExprEmitter(*this, lanes, leaves).run(expr);
}

std::vector<Value*> Emitter::emit_all(const std::vector<Expr>& exprs, const Lanes& lanes,
                                      const Leaves& leaves) {
  ExprEmitter emitter(*this, lanes, leaves);
  std::vector<Value*> values;
  for (const Expr& expr : exprs) values.push_back(emitter.run(expr));
  return values;
}

Value* ExprEmitter::run(const Expr& expr) {
  Value* value = widen(node(expr));
  plan::visit(expr, [&](const ExprNode& node) {
    if (node.kind == ExprKind::Check) note_failure(node);
  });
  return value;
}

// Noted here, where the expression is needed, even if the operand is known outside of a loop: that
// one is computed there, also for a loop further in that turns out to be empty.
void ExprEmitter::note_failure(const ExprNode& check) {
  failures_.push_back(plan::failure(check));
  Value* failed = node(failures_.back());
  if (failed->getType()->isVectorTy() && lanes_.mask != nullptr) {
    failed = ir_.CreateAnd(failed, ir_.CreateSExt(lanes_.mask, failed->getType()));
  }
  emitter_.note_failure(check.check, failed);
}

bool ExprEmitter::varies(const Expr& expr) {
  if (!is_vector()) return false;
  auto [it, fresh] = varies_.try_emplace(expr.get(), false);
  if (!fresh) return it->second;
  bool result = false;
  switch (expr->kind) {
    case ExprKind::Constant:
      break;
    case ExprKind::Position:
      result = expr->index.mentions(lanes_.index);
      break;
    case ExprKind::Reduced:
      result = leaves_.reduced.at(static_cast<size_t>(expr->slot))->getType()->isVectorTy();
      break;
    case ExprKind::Accumulator:
      result = leaves_.accumulator->getType()->isVectorTy();
      break;
    case ExprKind::Load:
    case ExprKind::Apply:
    case ExprKind::Check:
      result = std::ranges::any_of(expr->args, [&](const Expr& arg) { return varies(arg); }) ||
               (expr->predicate && varies(expr->predicate));
  }
  return varies_[expr.get()] = result;
}

// Whether the value comes from an earlier part of this kernel: such a load must stay behind the
// store, so it does not leave the loop that both are in.
bool ExprEmitter::is_result(const ExprNode& node) const {
  return node.kind == ExprKind::Reduced || node.kind == ExprKind::Accumulator ||
         (node.kind == ExprKind::Load && emitter_.written_.contains(node.buffer));
}

size_t ExprEmitter::depth(const Expr& expr) {
  auto [it, fresh] = depths_.try_emplace(expr.get(), 0);
  if (!fresh) return it->second;
  size_t result = 0;
  if (expr->kind == ExprKind::Position) {
    result = emitter_.depth_of(expr->index);
  } else if (is_result(*expr)) {
    result = emitter_.scopes_.size() - (leaves_.invariant ? 1 : 0);
  }
  for (const Expr& arg : expr->args) result = std::max(result, depth(arg));
  if (expr->predicate) result = std::max(result, depth(expr->predicate));
  return depths_[expr.get()] = result;
}

Value* ExprEmitter::node(const Expr& expr) {
  if (auto it = values_.find(expr.get()); it != values_.end()) return it->second;
  const bool costs = expr->kind == ExprKind::Load || expr->kind == ExprKind::Apply;
  const bool in_loop = emitter_.scopes_.size() > 1;
  const bool hoist = costs && in_loop && !varies(expr) && emitter_.is_hoisted(depth(expr));
  Value* value = hoist ? node_before_loop(expr) : compute(expr);
  return values_[expr.get()] = value;
}

Value* ExprEmitter::node_before_loop(const Expr& expr) {
  Emitter::Scope& scope = emitter_.scopes_.back();
  if (auto it = scope.invariants.find(expr); it != scope.invariants.end()) return it->second;
  llvm::IRBuilder<>::InsertPointGuard guard(ir_);
  ir_.SetInsertPoint(scope.before);
  return scope.invariants[expr] = compute(expr);
}

Value* ExprEmitter::compute(const Expr& expr) {
  switch (expr->kind) {
    case ExprKind::Constant:
      return constant_value(ir_, *expr);
    case ExprKind::Position:
      return varies(expr) ? lane_values(expr->index, ir_.getInt64Ty())
                          : emitter_.value_of(expr->index);
    case ExprKind::Load:
      return load(*expr);
    case ExprKind::Reduced:
      return leaves_.reduced.at(static_cast<size_t>(expr->slot));
    case ExprKind::Accumulator:
      return leaves_.accumulator;
    case ExprKind::Apply:
      return apply(expr);
    case ExprKind::Check:
      return node(expr->args[0]);
  }
  throw InternalError("unknown kind of expression");
}

Value* ExprEmitter::apply(const Expr& expr) {
  if (Value* product = multiply_by_reciprocal(expr)) return product;
  if (Value* bytes = quantise(expr)) return bytes;
  if (Value* sum = multiply_add(expr)) return sum;
  std::vector<Value*> args;
  bool vectors = false;
  for (const Expr& arg : expr->args) {
    args.push_back(node(arg));
    vectors |= args.back()->getType()->isVectorTy();
  }
  if (vectors) {
    for (Value*& arg : args) arg = widen(arg);
  }
  return emit_operation(ir_, *expr, args);
}

// exp(x - max) / sum -> exp(x - max) * (1 / sum), the sum equal in all lanes: one division a row of
// a softmax instead of one an element. Its sum is 1 at least; other divisors may have no
// reciprocal.
Value* ExprEmitter::multiply_by_reciprocal(const Expr& expr) {
  if (expr->op != ir::Op::div || !is_floating(expr->dtype)) return nullptr;
  const Expr& divisor = expr->args[1];
  if (!varies(expr->args[0]) || varies(divisor) || !emitter_.is_hoisted(depth(divisor)) ||
      !is_softmax_term(expr->args[0]) || divisor->kind != ExprKind::Reduced) {
    return nullptr;
  }
  const Expr reciprocal = plan::apply(ir::Op::reciprocal, {divisor});
  Value* factor = node_before_loop(reciprocal);
  return ir_.CreateFMul(node(expr->args[0]), widen(factor));
}

// a * b + c, where that may be rounded once.
Value* ExprEmitter::multiply_add(const Expr& expr) {
  if (!leaves_.contracts || expr->op != ir::Op::add || expr->dtype != DType::F32) return nullptr;
  for (size_t i = 0; i < 2; ++i) {
    const Expr& product = expr->args[i];
    if (!is_apply(product, ir::Op::mul) || !varies(product)) continue;
    Value* c = widen(node(expr->args[1 - i]));
    Value* a = widen(node(product->args[0]));
    Value* b = widen(node(product->args[1]));
    return ir_.CreateIntrinsic(llvm::Intrinsic::fma, {a->getType()}, {a, b, c});
  }
  return nullptr;
}

// The largest magnitude of what is made of integers and constants; infinite where it is not known, or no number.
double ExprEmitter::magnitude(const Expr& expr) {
  const auto it = magnitudes_.find(expr.get());
  return it != magnitudes_.end() ? it->second : magnitudes_[expr.get()] = magnitude_of(*expr);
}

double ExprEmitter::magnitude_of(const ExprNode& expr) {
  const auto of = [&](size_t i) { return magnitude(expr.args[i]); };
  if (expr.kind == ExprKind::Constant) {
    const double number = is_floating(expr.dtype) ? expr.number : static_cast<double>(expr.integer);
    return std::isnan(number) ? kUnknown : std::abs(number);
  }
  if (expr.dtype == DType::U8 || expr.dtype == DType::I8) return 255;
  if (expr.kind == ExprKind::Load)
    return backend::magnitude_bound(
        emitter_.program().buffers.at(static_cast<size_t>(expr.buffer)));
  if (expr.kind == ExprKind::Accumulator || expr.kind == ExprKind::Reduced)
    return expr.dtype == DType::I32 ? 0x1p31 : kUnknown;
  if (expr.kind != ExprKind::Apply) return kUnknown;
  switch (expr.op) {
    case ir::Op::cast:
      return is_floating(expr.dtype) || expr.dtype == DType::I32 ? of(0) : kUnknown;
    case ir::Op::relu:
    case ir::Op::round:
      return of(0) + 1;
    case ir::Op::add:
    case ir::Op::sub:
    case ir::Op::maximum:
    case ir::Op::minimum:
      return of(0) + of(1);
    case ir::Op::mul:
      return of(0) == 0 || of(1) == 0 ? kUnknown : of(0) * of(1);
    default:
      return kUnknown;
  }
}

namespace {

// clamp(round(x) + zero, 0, most) as u8.
struct Quantisation {
  Expr x;
  double zero = 0, most = 0;
};

// A constant operand that is a small integer.
std::optional<double> small_integer(const Expr& expr) {
  constexpr double kMost = 1 << 16;
  if (expr->kind != ExprKind::Constant || !is_floating(expr->dtype)) return std::nullopt;
  const bool is_small = std::abs(expr->number) <= kMost && std::trunc(expr->number) == expr->number;
  return is_small ? std::optional(expr->number) : std::nullopt;
}

std::optional<Quantisation> quantisation(const Expr& cast) {
  if (cast->op != ir::Op::cast || cast->dtype != DType::U8) return std::nullopt;
  Quantisation result;
  const auto take = [](Expr& from, ir::Op op) -> std::optional<double> {
    if (!is_apply(from, op)) return std::nullopt;
    const auto number = small_integer(from->args[1]);
    if (number) from = from->args[0];
    return number;
  };
  Expr value = cast->args[0];
  if (value->dtype != DType::F32) return std::nullopt;
  const auto most = take(value, ir::Op::minimum);
  std::optional<double> least;
  if (is_apply(value, ir::Op::relu)) {
    least = 0;
    value = value->args[0];
  } else {
    least = take(value, ir::Op::maximum);
  }
  result.zero = take(value, ir::Op::add).value_or(0);
  if (!most || !least || !is_apply(value, ir::Op::round)) return std::nullopt;
  // NaN is 0, which the least integer becomes: it is below all others, and stays so with a zero point.
  if (*least != 0 || *most < 0 || *most > 255 || result.zero < 0) return std::nullopt;
  result.most = *most;
  result.x = value->args[0];
  return result;
}

}  // namespace

// A quantisation in integers: rounded as it is converted, then moved and limited. A vector is not above the most
// before, so that what is large does not become the least integer, as what is small and NaN do.
Value* ExprEmitter::quantise(const Expr& expr) {
  auto found = lanes_.count == kLongDivision && has_feature(ir_, Feature::Avx512Dq)
                   ? quantisation(expr)
                   : std::nullopt;
  if (!found || !varies(found->x) || values_.contains(found->x.get())) return nullptr;
  const double bound = found->most - found->zero + 1;
  // A number whose conversion does not leave i32 needs no limit before, and no relu: the least integer is one.
  double least = 0;
  Value* quotient = nullptr;
  if (magnitude(found->x) < kLargestConverted) {
    if (is_apply(found->x, ir::Op::relu)) {
      least = found->zero;
      found->x = found->x->args[0];
    }
    quotient = node(found->x);
  } else {
    quotient = divide_below(found->x, bound);
    if (quotient == nullptr) quotient = at_most(node(found->x), bound);
  }
  constexpr int32_t kNearest = 8;
  llvm::Type* integers = quotient->getType()->getWithNewType(ir_.getInt32Ty());
  Value* value = ir_.CreateIntrinsic(llvm::Intrinsic::x86_avx512_mask_cvtps2dq_512, {},
                                     {quotient, llvm::Constant::getNullValue(integers),
                                      ir_.getInt16(0xFFFF), ir_.getInt32(kNearest)});
  const auto of = [&](double number) {
    return llvm::ConstantInt::getSigned(integers, static_cast<int64_t>(number));
  };
  if (found->zero != 0) value = ir_.CreateAdd(value, of(found->zero));
  value = ir_.CreateBinaryIntrinsic(llvm::Intrinsic::smax, value, of(least));
  value = ir_.CreateBinaryIntrinsic(llvm::Intrinsic::smin, value, of(found->most));
  return ir_.CreateTrunc(value, value->getType()->getWithNewType(ir_.getInt8Ty()));
}

Value* ExprEmitter::at_most(Value* value, double bound) {
  Value* most = llvm::ConstantFP::get(value->getType(), bound);
  return ir_.CreateSelect(ir_.CreateFCmpOLT(most, value), most, value);
}

// x / c, rounded, for what is not above a bound: from the reciprocal of the constant, put right by its rest,
// which is exact (Markstein). Where there is no rest, the quotient is no number. Null for another expression.
Value* ExprEmitter::divide_below(const Expr& quotient, double bound) {
  constexpr double kLeast = 0x1p-60, kMost = 0x1p60;
  if (!is_apply(quotient, ir::Op::div) || quotient->args[1]->kind != ExprKind::Constant)
    return nullptr;
  const auto divisor = static_cast<float>(quotient->args[1]->number);
  if (!(divisor >= kLeast && divisor <= kMost)) return nullptr;
  Value* x = at_most(node(quotient->args[0]), bound * divisor);
  const auto of = [&](float number) { return llvm::ConstantFP::get(x->getType(), number); };
  const auto fma = [&](Value* a, Value* b, Value* c) {
    return ir_.CreateIntrinsic(llvm::Intrinsic::fma, {a->getType()}, {a, b, c});
  };
  Value* estimate = ir_.CreateFMul(x, of(1.0F / divisor));
  return fma(fma(estimate, of(-divisor), x), of(1.0F / divisor), estimate);
}

Value* ExprEmitter::widen(Value* value) {
  if (!is_vector() || value->getType()->isVectorTy()) return value;
  return ir_.CreateVectorSplat(static_cast<unsigned>(lanes_.count), value);
}

// --- Positions in buffers -----------------------------------------------------------------------

Value* ExprEmitter::address(plan::BufferId buffer, const Offset& offset) {
  Value* base = emitter_.address(buffer, offset.linear);
  if (offset.dynamic.empty()) return base;
  const DType dtype = emitter_.program().buffers[static_cast<size_t>(buffer)].type.dtype;
  for (const auto& [expr, stride] : offset.dynamic) {
    Value* elements = ir_.CreateMul(node(expr), emitter_.value_of(stride));
    base = ir_.CreateGEP(memory_type(ir_, dtype), base, elements);
  }
  return base;
}

std::optional<Dim> ExprEmitter::lane_stride(const Offset& offset) {
  if (std::ranges::any_of(offset.dynamic, [&](const auto& term) { return varies(term.first); })) {
    return std::nullopt;
  }
  const auto linear = offset.linear.as_linear_in(lanes_.index);
  if (!linear || depends_on_loops(linear->first)) return std::nullopt;
  return linear->first;
}

// --- Loads and stores ---------------------------------------------------------------------------

Value* ExprEmitter::all_lanes() {
  auto* type = llvm::FixedVectorType::get(ir_.getInt1Ty(), static_cast<unsigned>(lanes_.count));
  return llvm::Constant::getAllOnesValue(type);
}

Value* ExprEmitter::mask(const Expr& predicate) {
  Value* result = lanes_.mask;
  if (predicate) {
    Value* valid = widen(node(predicate));
    result = result == nullptr ? valid : ir_.CreateAnd(result, valid);
  }
  return result;
}

// The table is in registers for a whole loop, but for an epilogue, whose loop is the one of a tile: there sums need
// all registers.
Value* ExprEmitter::look_up(plan::BufferId table, const Expr& byte) {
  Value* bytes = node(byte);
  Value* address = emitter_.buffer(table);
  if (leaves_.accumulator != nullptr || emitter_.scopes_.size() == 1)
    return cpu::look_up(ir_, load_table(ir_, address), bytes);
  Emitter::Scope& scope = emitter_.scopes_.back();
  const auto [found, fresh] = scope.tables.try_emplace(table);
  if (fresh) {
    llvm::IRBuilder<>::InsertPointGuard guard(ir_);
    ir_.SetInsertPoint(scope.before);
    found->second = load_table(ir_, address);
  }
  return cpu::look_up(ir_, found->second, bytes);
}

Value* ExprEmitter::load(const ExprNode& node) {
  const Expr byte = looked_up_byte(emitter_.program(), node);
  if (byte != nullptr && varies(byte)) return look_up(node.buffer, byte);
  const Offset offset = backend::element_offset(emitter_.program(), node.buffer, node.args);
  Value* raw = nullptr;
  const bool varies_here =
      is_vector() &&
      (std::ranges::any_of(node.args, [&](const Expr& arg) { return varies(arg); }) ||
       (node.predicate && varies(node.predicate)));
  if (varies_here) {
    raw = load_lanes(node, offset);
  } else {
    Value* place = address(node.buffer, offset);
    if (node.predicate) {
      place = ir_.CreateSelect(this->node(node.predicate), place, emitter_.zeros());
    }
    raw = ir_.CreateAlignedLoad(memory_type(ir_, node.dtype), place,
                                llvm::Align(dtype_size(node.dtype)));
  }
  return from_memory(ir_, raw, node.dtype);
}

Value* ExprEmitter::load_lanes(const ExprNode& node, const Offset& offset) {
  const auto stride = lane_stride(offset);
  if (!stride || !stride->is_constant(1)) return gather(node, offset);
  auto* type =
      llvm::FixedVectorType::get(memory_type(ir_, node.dtype), static_cast<unsigned>(lanes_.count));
  const llvm::Align align(dtype_size(node.dtype));
  Value* place = address(node.buffer, offset);
  Value* active = lanes_.mask;
  if (node.predicate && varies(node.predicate)) {
    active = mask(node.predicate);
  } else if (node.predicate) {
    place = ir_.CreateSelect(this->node(node.predicate), place, emitter_.zeros());
  }
  if (active == nullptr) return ir_.CreateAlignedLoad(type, place, align);
  return ir_.CreateMaskedLoad(type, place, align, active, llvm::Constant::getNullValue(type));
}

Value* ExprEmitter::gather(const ExprNode& node, const Offset& offset) {
  auto* type =
      llvm::FixedVectorType::get(memory_type(ir_, node.dtype), static_cast<unsigned>(lanes_.count));
  Value* active = mask(node.predicate);
  Value* places = ir_.CreateGEP(type->getElementType(), emitter_.buffer(node.buffer),
                                lane_indices(node.buffer, offset));
  return ir_.CreateMaskedGather(type, places, llvm::Align(dtype_size(node.dtype)),
                                active == nullptr ? all_lanes() : active,
                                llvm::Constant::getNullValue(type));
}

void Emitter::store(plan::BufferId buffer, const std::vector<plan::Index>& indices, Value* value,
                    const Lanes& lanes) {
  const Leaves none;
  ExprEmitter(*this, lanes, none).store(buffer, indices, value);
  written_.insert(buffer);
}

void ExprEmitter::store(plan::BufferId buffer, const std::vector<plan::Index>& indices,
                        Value* value) {
  std::vector<Expr> args;
  for (const plan::Index& index : indices) args.push_back(plan::position(index));
  const Offset offset = backend::element_offset(emitter_.program(), buffer, args);
  const DType dtype = emitter_.program().buffers.at(static_cast<size_t>(buffer)).type.dtype;
  const llvm::Align align(dtype_size(dtype));
  Value* memory = to_memory(ir_, widen(value), dtype);
  if (!is_vector()) {
    ir_.CreateAlignedStore(memory, address(buffer, offset), align);
    return;
  }
  const auto stride = lane_stride(offset);
  Value* active = lanes_.mask;
  if (!stride || !stride->is_constant(1)) {
    Value* places = ir_.CreateGEP(memory->getType()->getScalarType(), emitter_.buffer(buffer),
                                  lane_indices(buffer, offset));
    ir_.CreateMaskedScatter(memory, places, align, active == nullptr ? all_lanes() : active);
  } else if (active != nullptr) {
    ir_.CreateMaskedStore(memory, address(buffer, offset), align, active);
  } else {
    ir_.CreateAlignedStore(memory, address(buffer, offset), align);
  }
}

}  // namespace kiln::cpu
