// What becomes of an element of an operand on its way into a product.
#pragma once

#include "backends/cpu/compile/emit/element.h"

namespace kiln::cpu {

// How the element lies in memory, what it is multiplied as, and what products are summed in: the
// type that registers and scratch hold.
struct OperandFormat {
  DType memory = DType::F32, value = DType::F32, sum = DType::F32;

  // Nothing happens to it.
  bool is_plain() const { return memory == sum && value == sum; }
  // Nothing is rounded: it can be read again and again where it lies.
  bool widens() const { return is_lossless(memory, value); }
  // An element or `lanes` neighbours, in registers.
  llvm::Value* load(llvm::IRBuilder<>& ir, llvm::Value* address, int lanes = 1,
                    int64_t alignment = 0) const {
    return converted(ir, ElementFormat(memory).load(ir, address, lanes, alignment));
  }
  llvm::Value* load_masked(llvm::IRBuilder<>& ir, llvm::Value* address, llvm::Value* mask) const {
    return converted(ir, ElementFormat(memory).load_masked(ir, address, mask));
  }

 private:
  llvm::Value* converted(llvm::IRBuilder<>& ir, llvm::Value* loaded) const {
    return convert(ir, convert(ir, loaded, memory, value), value, sum);
  }
};

}  // namespace kiln::cpu
