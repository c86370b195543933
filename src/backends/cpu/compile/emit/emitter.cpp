// Function frame, index arithmetic and loops.
#include "backends/cpu/compile/emit/emitter.h"

#include <algorithm>
#include <optional>

#include <llvm/IR/Dominators.h>
#include <llvm/Transforms/Utils/PromoteMemToReg.h>

#include "support/error.h"

namespace kiln::cpu {

using ir::AtomKind;
using ir::Dim;
using llvm::Value;

namespace {

bool fits_u32(const Dim& dim) {
  return dim.lower_bound() >= 0 && dim.upper_bound() <= int64_t{0xffffffff};
}

// Whether a < b, if both are constants.
std::optional<bool> known_less(Value* a, Value* b) {
  const auto* left = llvm::dyn_cast<llvm::ConstantInt>(a);
  const auto* right = llvm::dyn_cast<llvm::ConstantInt>(b);
  if (left == nullptr || right == nullptr) return std::nullopt;
  return left->getSExtValue() < right->getSExtValue();
}

llvm::Function* make_function(llvm::Module& module, const Target& target,
                              const std::string& symbol) {
  llvm::LLVMContext& context = module.getContext();
  llvm::Type* pointer = llvm::PointerType::getUnqual(context);
  llvm::Type* i64 = llvm::Type::getInt64Ty(context);
  auto* type = llvm::FunctionType::get(i64, {pointer, pointer, pointer, i64, i64}, false);
  auto* function =
      llvm::Function::Create(type, llvm::GlobalValue::ExternalLinkage, symbol, &module);
  function->setDSOLocal(true);
  function->setDoesNotThrow();
  function->addFnAttr(llvm::Attribute::NoRedZone);
  function->addFnAttr("no-builtins");
  function->addFnAttr("target-features", target.features.llvm_str());
  const std::string width = std::to_string(target.vector_bits);
  function->addFnAttr("prefer-vector-width", width);
  function->addFnAttr("min-legal-vector-width", width);
  return function;
}

}  // namespace

Emitter::Emitter(const plan::Program& program, const Target& target, KernelInterface& interface,
                 ConstantPool& constants, llvm::Module& module, const std::string& symbol)
    : program_(program),
      target_(target),
      interface_(interface),
      constants_(constants),
      module_(module),
      builder_(module.getContext()),
      function_(make_function(module, target, symbol)) {
  buffers_ = function_->getArg(0);
  params_ = function_->getArg(1);
  scratch_ = function_->getArg(2);
  begin_ = function_->getArg(3);
  end_ = function_->getArg(4);
  auto* entry = llvm::BasicBlock::Create(module.getContext(), "entry", function_);
  auto* body = llvm::BasicBlock::Create(module.getContext(), "body", function_);
  builder_.SetInsertPoint(entry);
  scopes_.emplace_back(builder_.CreateBr(body));
  builder_.SetInsertPoint(body);
}

void Emitter::reserve_keys() {
  keys_ = scratch_;
  scratch_ = builder_.CreateConstGEP1_64(builder_.getInt8Ty(), scratch_, engine::kKeyBytes);
}

Value* Emitter::load_argument(Value* array, int32_t index, llvm::Type* type) {
  llvm::IRBuilder<>::InsertPointGuard guard(builder_);
  builder_.SetInsertPoint(scopes_.front().before);
  Value* slot = builder_.CreateConstInBoundsGEP1_64(type, array, static_cast<uint64_t>(index));
  return builder_.CreateAlignedLoad(type, slot, llvm::Align(8));
}

Value* Emitter::buffer(plan::BufferId buffer) {
  Value*& base = bases_[buffer];
  if (base == nullptr) {
    base = load_argument(buffers_, interface_.buffer_index(buffer), builder_.getPtrTy());
  }
  return base;
}

Value* Emitter::parameter(const Dim& dim) {
  Value*& value = scopes_.front().values[dim];
  if (value == nullptr) {
    value = load_argument(params_, interface_.param_index(dim), builder_.getInt64Ty());
  }
  return value;
}

// Constant terms come last, so that they end up as displacements of the instructions.
Value* Emitter::address(plan::BufferId buffer, const Dim& offset) {
  if (offset.is_constant(0)) return this->buffer(buffer);
  const DType dtype = program_.buffers.at(static_cast<size_t>(buffer)).type.dtype;
  llvm::Type* element = builder_.getIntNTy(static_cast<unsigned>(dtype_size(dtype) * 8));
  if (const int64_t constant = constant_term(offset); constant != 0) {
    return builder_.CreateGEP(element, address(buffer, offset - constant), value_of(constant));
  }
  const size_t depth = depth_of(offset);
  auto make = [&] {
    const auto [outer, inner] = split_at(offset, depth);
    Value* base = address(buffer, outer);
    return builder_.CreateGEP(element, base, value_of(inner));
  };
  if (!is_hoisted(depth)) return make();
  auto& known = scopes_[depth].addresses[buffer];
  if (auto it = known.find(offset); it != known.end()) return it->second;
  llvm::IRBuilder<>::InsertPointGuard guard(builder_);
  builder_.SetInsertPoint(scopes_[depth].before);
  return known[offset] = make();
}

void Emitter::bind(const ir::SymbolPtr& index, Value* value) {
  Binding& binding = bindings_[index.get()];
  if (binding.value != nullptr) {  // forget what was made of the old value
    auto stale = [&](const auto& entry) { return entry.first.mentions(index); };
    for (Scope& scope : scopes_) {
      std::erase_if(scope.values, stale);
      for (auto& [buffer, addresses] : scope.addresses) std::erase_if(addresses, stale);
      scope.invariants.clear();
    }
  }
  binding = {value, scopes_.size()};
}

const Emitter::Binding& Emitter::binding(const ir::Symbol& symbol) const {
  auto it = bindings_.find(&symbol);
  KILN_CHECK(it != bindings_.end(), "the loop index " + symbol.name + " has no value here");
  return it->second;
}

size_t Emitter::depth_of(const Dim& dim) const {
  size_t depth = 0;
  for (const ir::SymbolPtr& symbol : dim.symbols()) {
    if (symbol->is_loop) depth = std::max(depth, binding(*symbol).depth);
  }
  return depth;
}

std::pair<Dim, Dim> Emitter::split_at(const Dim& dim, size_t depth) const {
  Dim below, rest;
  for (const ir::Term& term : dim.terms()) {
    const Dim value = dim_of_term(term);
    (depth_of(value) < depth ? below : rest) += value;
  }
  return {below, rest};
}

Value* Emitter::value_of(const Dim& dim) {
  if (dim.is_constant()) return builder_.getInt64(static_cast<uint64_t>(dim.constant()));
  if (!depends_on_loops(dim)) return parameter(dim);
  const size_t depth = depth_of(dim);
  if (!is_hoisted(depth)) return compute(dim, depth);
  if (auto it = scopes_[depth].values.find(dim); it != scopes_[depth].values.end()) {
    return it->second;
  }
  llvm::IRBuilder<>::InsertPointGuard guard(builder_);
  builder_.SetInsertPoint(scopes_[depth].before);
  Value* result = compute(dim, depth);
  scopes_[depth].values[dim] = result;
  return result;
}

Value* Emitter::compute(const Dim& dim, size_t depth) {
  const auto [outer, inner] = split_at(dim, depth);
  Value* sum = outer.is_constant(0) ? nullptr : value_of(outer);
  for (const ir::Term& term : inner.terms()) {
    Value* value = compute_term(term);
    sum = sum == nullptr ? value : builder_.CreateAdd(sum, value);
  }
  return sum == nullptr ? builder_.getInt64(0) : sum;
}

// The factors that are known outside of all loops are one parameter.
Value* Emitter::compute_term(const ir::Term& term) {
  Dim fixed = term.coefficient;
  Value* product = nullptr;
  for (const ir::AtomPtr& factor : term.factors) {
    const Dim dim = dim_of_atom(factor);
    if (!depends_on_loops(dim)) {
      fixed *= dim;
      continue;
    }
    Value* value = compute_atom(*factor);
    product = product == nullptr ? value : builder_.CreateMul(product, value);
  }
  if (product == nullptr) return value_of(fixed);
  return fixed.is_constant(1) ? product : builder_.CreateMul(product, value_of(fixed));
}

Value* Emitter::compute_atom(const ir::Atom& atom) {
  switch (atom.kind) {
    case AtomKind::Symbol:
      return binding(*atom.symbol).value;
    case AtomKind::Min:
      return builder_.CreateBinaryIntrinsic(llvm::Intrinsic::smin, value_of(atom.a),
                                            value_of(atom.b));
    case AtomKind::Max:
      return builder_.CreateBinaryIntrinsic(llvm::Intrinsic::smax, value_of(atom.a),
                                            value_of(atom.b));
    case AtomKind::FloorDiv:
    case AtomKind::Mod:
      return compute_division(atom);
  }
  throw InternalError("unknown kind of atom");
}

// Hoisted code runs even if the loops that would give a zero divisor are empty: zero counts as one.
Value* Emitter::compute_division(const ir::Atom& atom) {
  const bool quotient = atom.kind == AtomKind::FloorDiv;
  Value* a = value_of(atom.a);
  Value* b = value_of(atom.b);
  Value* one = builder_.getInt64(1);
  if (atom.b.lower_bound() < 1) {
    b = builder_.CreateSelect(builder_.CreateIsNull(b), one, b);
  }
  const bool positive = atom.b.lower_bound() >= 0;
  if (positive && fits_u32(atom.a) && fits_u32(atom.b)) {
    llvm::Type* i32 = builder_.getInt32Ty();
    a = builder_.CreateTrunc(a, i32);
    b = builder_.CreateTrunc(b, i32);
    Value* result = quotient ? builder_.CreateUDiv(a, b) : builder_.CreateURem(a, b);
    return builder_.CreateZExt(result, builder_.getInt64Ty());
  }
  if (positive && atom.a.lower_bound() >= 0) {
    return quotient ? builder_.CreateUDiv(a, b) : builder_.CreateURem(a, b);
  }
  // Rounding towards minus infinity: one less than truncation if the signs differ.
  Value* truncated = builder_.CreateSDiv(a, b);
  Value* rest = builder_.CreateSub(a, builder_.CreateMul(truncated, b));
  Value* differ = builder_.CreateICmpSLT(builder_.CreateXor(rest, b), builder_.getInt64(0));
  Value* inexact = builder_.CreateAnd(builder_.CreateIsNotNull(rest), differ);
  if (quotient)
    return builder_.CreateSelect(inexact, builder_.CreateSub(truncated, one), truncated);
  return builder_.CreateSelect(inexact, builder_.CreateAdd(rest, b), rest);
}

void Emitter::loop(Value* begin, Value* end, int64_t step,
                   const std::function<void(Value*)>& body) {
  loop_carrying(begin, end, step, {}, [&](Value* index, const Carried&) {
    body(index);
    return Carried();
  });
}

Emitter::Carried Emitter::loop_carrying(Value* begin, Value* end, int64_t step, Carried initial,
                                        const CarryingBody& body) {
  const std::optional<bool> runs = known_less(begin, end);
  if (runs == false) return initial;
  llvm::LLVMContext& context = module_.getContext();
  auto* guard = builder_.GetInsertBlock();
  auto* before = llvm::BasicBlock::Create(context, "before", function_);
  auto* inside = llvm::BasicBlock::Create(context, "loop", function_);
  auto* after = llvm::BasicBlock::Create(context, "after", function_);
  if (runs == true) {
    builder_.CreateBr(before);
  } else {
    builder_.CreateCondBr(builder_.CreateICmpSLT(begin, end), before, after);
  }
  builder_.SetInsertPoint(before);
  scopes_.emplace_back(builder_.CreateBr(inside));

  builder_.SetInsertPoint(inside);
  llvm::PHINode* index = builder_.CreatePHI(builder_.getInt64Ty(), 2);
  index->addIncoming(begin, before);
  std::vector<llvm::PHINode*> phis;
  for (Value* value : initial) {
    phis.push_back(builder_.CreatePHI(value->getType(), 2));
    phis.back()->addIncoming(value, before);
  }
  const Carried last = body(index, Carried(phis.begin(), phis.end()));
  KILN_CHECK(last.size() == initial.size(), "a loop gives back what it carries");
  Value* next = builder_.CreateAdd(index, builder_.getInt64(static_cast<uint64_t>(step)));
  auto* latch = builder_.GetInsertBlock();
  index->addIncoming(next, latch);
  for (size_t i = 0; i < phis.size(); ++i) phis[i]->addIncoming(last[i], latch);
  builder_.CreateCondBr(builder_.CreateICmpSLT(next, end), inside, after);
  scopes_.pop_back();

  builder_.SetInsertPoint(after);
  Carried results;
  for (size_t i = 0; i < last.size(); ++i) {
    llvm::PHINode* result = builder_.CreatePHI(initial[i]->getType(), 2);
    if (!runs) result->addIncoming(initial[i], guard);
    result->addIncoming(last[i], latch);
    results.push_back(result);
  }
  return results;
}

Value* Emitter::zeros() {
  if (zeros_ == nullptr) {
    auto* type = llvm::ArrayType::get(builder_.getInt8Ty(), 128);
    zeros_ = new llvm::GlobalVariable(module_, type, true, llvm::GlobalValue::PrivateLinkage,
                                      llvm::ConstantAggregateZero::get(type), "zeros");
    zeros_->setAlignment(llvm::Align(64));
    zeros_->setDSOLocal(true);
  }
  return zeros_;
}

// Plain variables: what the loops carry comes of turning them into registers, at the end.
void Emitter::note_failure(int32_t check, Value* failed) {
  const int32_t bit = interface_.check_bit(check);
  auto it = std::ranges::find_if(failures_, [&](const auto& entry) {
    return entry.first == bit && entry.second->getAllocatedType() == failed->getType();
  });
  if (it == failures_.end()) {
    llvm::IRBuilder<>::InsertPointGuard guard(builder_);
    builder_.SetInsertPoint(&function_->getEntryBlock(), function_->getEntryBlock().begin());
    llvm::AllocaInst* variable = builder_.CreateAlloca(failed->getType());
    builder_.CreateStore(llvm::Constant::getNullValue(failed->getType()), variable);
    it = failures_.insert(it, {bit, variable});
  }
  Value* before = builder_.CreateLoad(failed->getType(), it->second);
  builder_.CreateStore(builder_.CreateOr(before, failed), it->second);
}

Value* Emitter::failed_checks() {
  Value* bits = builder_.getInt64(0);
  for (const auto& [bit, variable] : failures_) {
    Value* failed = builder_.CreateLoad(variable->getAllocatedType(), variable);
    if (failed->getType()->isVectorTy()) failed = builder_.CreateOrReduce(failed);
    Value* flag = builder_.CreateZExt(builder_.CreateIsNeg(failed), builder_.getInt64Ty());
    bits = builder_.CreateOr(bits, builder_.CreateShl(flag, static_cast<uint64_t>(bit)));
  }
  return bits;
}

void Emitter::finish() {
  builder_.CreateRet(failed_checks());
  std::vector<llvm::AllocaInst*> variables;
  for (const auto& [bit, variable] : failures_) variables.push_back(variable);
  if (variables.empty()) return;
  llvm::DominatorTree dominators(*function_);
  llvm::PromoteMemToReg(variables, dominators);
}

}  // namespace kiln::cpu
