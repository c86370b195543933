// Matrix products by tiles of AMX: all rows of a task meet a strip of columns of B, a block of K after another.
#pragma once

#include <optional>

#include "backends/cpu/compile/contract/amx.h"

namespace kiln::cpu {

// What is the same for all strips of a kernel.
struct AmxSizes {
  bool has_bytes = false;
  CountRange rows;     // of a strip
  ir::Dim steps;       // of K
  int64_t width = 16;  // of a panel of B

  ir::Dim rest() const { return ir::mod(steps, kAmxSteps); }
  // Tiles of columns of a strip.
  int columns() const { return amx_columns(width, rest()); }
  // Whether blocks of K follow each other, with sums of all rows in memory between them.
  bool has_depth_blocks() const;
  // Of the configuration, and of sums.
  int64_t scratch_bytes() const;
};

// Addresses; strides in bytes.
struct AmxStrip {
  Span rows;
  llvm::Value *a = nullptr, *a_stride = nullptr;  // the first of the rows, and from one to the next
  llvm::Value* b = nullptr;
  llvm::Value* column = nullptr;  // the first
  // B comes from memory, and is fetched ahead by all blocks of so many rows together; 0: it does not.
  int64_t rows_at_opt = 0;
};

class AmxProduct {
 public:
  // `scratch`: of sizes.scratch_bytes().
  AmxProduct(Emitter& emitter, AmxSizes sizes, llvm::Value* scratch)
      : emitter_(emitter), ir_(emitter.ir()), sizes_(std::move(sizes)), scratch_(scratch) {}

  // `smallest`: the least number of rows that a strip of this run has.
  void configure(llvm::Value* smallest);
  void release() { tiles_->release(); }
  // Columns from strip.column to output.column_end; `origin` is the address of the element at row 0 and column 0.
  void multiply(const AmxStrip& strip, const Output& output, llvm::Value* origin);

 private:
  // A block of K.
  struct DepthBlock {
    llvm::Value *first = nullptr, *tiles = nullptr, *is_last = nullptr;
  };
  struct Task {
    const AmxStrip& strip;
    const Output& output;
    llvm::Value *origin = nullptr, *row_tiles = nullptr;
  };
  void multiply_block(const Task& task, const DepthBlock& depth);
  AmxOperands operands(const AmxStrip& strip, llvm::Value* first, int count,
                       const DepthBlock& depth);
  llvm::ConstantInt* i64(int64_t value) { return ir_.getInt64(value); }

  Emitter& emitter_;
  llvm::IRBuilder<>& ir_;
  AmxSizes sizes_;
  llvm::Value* scratch_;
  llvm::Value* row_count_ = nullptr;  // of a tile
  std::optional<AmxTiles> tiles_;
};

// Whether a product with groups is made of tiles (group_matmul.cpp).
bool group_multiplies_tiles(const plan::Program& program, const plan::MatMul& matmul,
                            const Target& target);

}  // namespace kiln::cpu
