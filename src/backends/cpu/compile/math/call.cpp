#include "backends/cpu/compile/math/call.h"

#include <llvm/IR/Module.h>

namespace kiln::cpu {

using llvm::Value;

namespace {

std::string type_suffix(llvm::Type* type) {
  const auto* vector = llvm::dyn_cast<llvm::FixedVectorType>(type);
  const std::string lanes = vector == nullptr ? "" : "x" + std::to_string(vector->getNumElements());
  return (type->getScalarType()->isDoubleTy() ? ".f64" : ".f32") + lanes;
}

// Private: the object file knows one function, the kernel.
llvm::Function* declare(llvm::Function& caller, const std::string& symbol, llvm::Type* type,
                        size_t count) {
  auto* signature = llvm::FunctionType::get(type, std::vector<llvm::Type*>(count, type), false);
  auto* function = llvm::Function::Create(signature, llvm::GlobalValue::PrivateLinkage, symbol,
                                          caller.getParent());
  function->setDSOLocal(true);
  const llvm::AttrBuilder attributes(caller.getContext(), caller.getAttributes().getFnAttrs());
  function->addFnAttrs(attributes);
  return function;
}

}  // namespace

Real call_function(const std::string& name, const std::vector<Real>& args,
                   const std::function<Real(const std::vector<Real>& args)>& body) {
  llvm::IRBuilder<>& ir = *args[0].ir;
  llvm::Type* type = args[0].value->getType();
  llvm::Function& caller = *ir.GetInsertBlock()->getParent();
  const std::string symbol = name + type_suffix(type);
  llvm::Function* function = caller.getParent()->getFunction(symbol);
  if (function == nullptr) {
    function = declare(caller, symbol, type, args.size());
    llvm::IRBuilder<> inside(llvm::BasicBlock::Create(ir.getContext(), "entry", function));
    std::vector<Real> parameters;
    for (llvm::Argument& argument : function->args()) parameters.emplace_back(inside, &argument);
    inside.CreateRet(body(parameters).value);
  }
  std::vector<Value*> values;
  for (const Real& arg : args) values.push_back(arg.value);
  return args[0].with(ir.CreateCall(function, values));
}

std::vector<Real> while_any(
    std::vector<Real> values, const std::function<Value*(const std::vector<Real>&)>& condition,
    const std::function<std::vector<Real>(const std::vector<Real>&)>& body) {
  llvm::IRBuilder<>& ir = *values[0].ir;
  llvm::BasicBlock* before = ir.GetInsertBlock();
  llvm::Function* function = before->getParent();
  auto* test = llvm::BasicBlock::Create(ir.getContext(), "test", function);
  auto* inside = llvm::BasicBlock::Create(ir.getContext(), "loop", function);
  auto* after = llvm::BasicBlock::Create(ir.getContext(), "after", function);
  ir.CreateBr(test);

  ir.SetInsertPoint(test);
  std::vector<llvm::PHINode*> phis;
  for (Real& value : values) {
    phis.push_back(ir.CreatePHI(value.value->getType(), 2));
    phis.back()->addIncoming(value.value, before);
    value = value.with(phis.back());
  }
  Value* active = condition(values);
  if (active->getType()->isVectorTy()) active = ir.CreateOrReduce(active);
  ir.CreateCondBr(active, inside, after);

  ir.SetInsertPoint(inside);
  const std::vector<Real> next = body(values);
  for (size_t i = 0; i < phis.size(); ++i) {
    phis[i]->addIncoming(next[i].value, ir.GetInsertBlock());
  }
  ir.CreateBr(test);
  ir.SetInsertPoint(after);
  return values;
}

}  // namespace kiln::cpu
