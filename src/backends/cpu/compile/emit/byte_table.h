// Bytes that stand in a table of 256: what functions of a byte are (plan/passes/tabulate_bytes.cpp).
#pragma once

#include <vector>

#include <llvm/IR/IRBuilder.h>

#include "plan/form/program.h"

namespace kiln::cpu {

// The byte whose place in a constant of 256 bytes a Load looks up; null for another Load.
plan::Expr looked_up_byte(const plan::Program& program, const plan::ExprNode& load);

// What registers hold of a table, in front of the code that looks bytes up.
struct ByteTable {
  llvm::Value* address = nullptr;
  std::vector<llvm::Value*> parts;  // of AVX-512: four vectors of 16 words
};
ByteTable load_table(llvm::IRBuilder<>& ir, llvm::Value* address);

// The elements of the table at a vector of bytes.
llvm::Value* look_up(llvm::IRBuilder<>& ir, const ByteTable& table, llvm::Value* bytes);

}  // namespace kiln::cpu
