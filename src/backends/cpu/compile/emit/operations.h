// The pointwise operations on register values.
#pragma once

#include <vector>

#include <llvm/IR/IRBuilder.h>

#include "plan/form/expr.h"

namespace kiln::cpu {

// `node` is an Apply; the operands are all scalars or all vectors of one width.
llvm::Value* emit_operation(llvm::IRBuilder<>& ir, const plan::ExprNode& node,
                            const std::vector<llvm::Value*>& args);

// max and min that give NaN if either is NaN.
llvm::Value* emit_maximum(llvm::IRBuilder<>& ir, llvm::Value* a, llvm::Value* b, DType dtype);
llvm::Value* emit_minimum(llvm::IRBuilder<>& ir, llvm::Value* a, llvm::Value* b, DType dtype);

}  // namespace kiln::cpu
