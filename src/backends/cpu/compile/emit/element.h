// Elements in memory and in registers: f16, bf16 and f8e4m3 are f32 in registers, bool is i1.
#pragma once

#include <llvm/IR/IRBuilder.h>

#include "support/dtype.h"

namespace kiln::cpu {

// The type of an element in memory, of one in a register, and how it gets from one to the other.
// Values are scalars or vectors of `lanes` neighbours; addresses are those of an element, aligned to
// its size where nothing else is said.
class ElementFormat {
 public:
  ElementFormat(DType dtype) : dtype_(dtype) {}  // NOLINT(google-explicit-constructor)

  DType dtype() const { return dtype_; }
  int64_t bytes() const { return static_cast<int64_t>(dtype_size(dtype_)); }
  // f32 for f16, bf16 and f8e4m3; `lanes` 1: a scalar.
  llvm::Type* register_type(llvm::IRBuilder<>& ir, int lanes = 1) const;
  llvm::Type* memory_type(llvm::IRBuilder<>& ir, int lanes = 1) const;

  llvm::Value* load(llvm::IRBuilder<>& ir, llvm::Value* address, int lanes = 1,
                    int64_t alignment = 0) const;
  void store(llvm::IRBuilder<>& ir, llvm::Value* value, llvm::Value* address,
             int64_t alignment = 0) const;
  // The lanes of a mask, <lanes x i1>; others are not touched, and loaded as zero.
  llvm::Value* load_masked(llvm::IRBuilder<>& ir, llvm::Value* address, llvm::Value* mask) const;
  void store_masked(llvm::IRBuilder<>& ir, llvm::Value* value, llvm::Value* address,
                    llvm::Value* mask) const;

 private:
  DType dtype_;
};

// Results of this function that are rounded to bf16 may be zero where they are denormal: for what follows products
// that take denormal operands as zero (vdpbf16ps, tdpbf16ps).
void take_denormals_as_zero(llvm::Function& function);
llvm::Type* register_type(llvm::IRBuilder<>& ir, DType dtype);
llvm::Type* memory_type(llvm::IRBuilder<>& ir, DType dtype);
// Scalars and vectors alike.
llvm::Value* from_memory(llvm::IRBuilder<>& ir, llvm::Value* value, DType dtype);
llvm::Value* to_memory(llvm::IRBuilder<>& ir, llvm::Value* value, DType dtype);
// Rounds a register value of f16, bf16 or f8e4m3, which is f32, to that dtype; others stay.
llvm::Value* round_to(llvm::IRBuilder<>& ir, llvm::Value* value, DType dtype);
// Conversion of register values, rounded ones if they are of 16 bits. To f16, bf16 and f8e4m3:
// rounds, and stays f32.
llvm::Value* convert(llvm::IRBuilder<>& ir, llvm::Value* value, DType from, DType to);

}  // namespace kiln::cpu
