// Elements in memory and in registers: f16 and bf16 are computed with as f32, bool is i1.
#pragma once

#include <llvm/IR/IRBuilder.h>

#include "support/dtype.h"

namespace kiln::cpu {

llvm::Type* register_type(llvm::IRBuilder<>& ir, DType dtype);
llvm::Type* memory_type(llvm::IRBuilder<>& ir, DType dtype);
// Scalars and vectors alike.
llvm::Value* from_memory(llvm::IRBuilder<>& ir, llvm::Value* value, DType dtype);
llvm::Value* to_memory(llvm::IRBuilder<>& ir, llvm::Value* value, DType dtype);
// Rounds a register value of f16 or bf16, which is f32, to that dtype; others stay.
llvm::Value* round_to(llvm::IRBuilder<>& ir, llvm::Value* value, DType dtype);
// Conversion of register values, rounded ones if they are of 16 bits. To f16 and bf16: rounds, and
// stays f32.
llvm::Value* convert(llvm::IRBuilder<>& ir, llvm::Value* value, DType from, DType to);

}  // namespace kiln::cpu
