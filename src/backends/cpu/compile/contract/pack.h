// Operands of contractions in the order in which the micro-kernel reads them.
//
// A packed B is [panels][K][panel width], zero-padded to whole panels: one panel is a contiguous
// run of memory, and one step of the micro-kernel reads one row of it. Where steps are several elements (pairs
// of bf16, quads of i8) it is [panels][K / step][panel width][step], K padded to whole steps. A constant is packed as the
// weight format says, 16-bit ones as they are; what is packed in the run is of the type of the sums,
// so that it is converted once for all rows that meet it. CPU levels that choose one width share the
// packed weight: it is made once, and stored once.
#pragma once

#include <cstdint>
#include <string>

#include "backends/cpu/compile/contract/operand_format.h"
#include "backends/cpu/compile/emit/emitter.h"

namespace kiln::cpu {

// A constant matrix inside a literal; strides in elements.
struct ConstantMatrix {
  int64_t offset = 0, k_stride = 0, n_stride = 0;
  int64_t k = 0, n = 0;
  int64_t batches = 1, batch_stride = 0;  // packed one after another
  DType weight = DType::F32;              // what it is packed as
  int64_t step = 1;                       // elements side by side: 2 of bf16, 4 of i8
  // K is `taps` runs of k / taps channels in the literal. Packed, it is chunks of at most `chunk` of the
  // channels, each with all its taps; 0: as it lies.
  int64_t taps = 1, chunk = 0;
  // Steps do not cross runs of so many elements, each of which is padded; 0: all of K is one.
  int64_t run = 0;
  // Elements of i8 in [-8, 7] become four bits each (pack_nibbles.h); one matrix as it lies alone.
  bool nibbles = false;
};

// The buffer that holds the packed matrix.
plan::BufferId pack_constant(ConstantPool& constants, plan::BufferId buffer,
                             const ConstantMatrix& matrix, int64_t width);

// What `transform` of the key of a packed constant says, done to another literal: the key is all
// that it needs. CompileError for a text that is no such key, or that does not fit the literal.
ir::Literal derive_constant(const std::string& transform, const ir::Literal& literal);

// A matrix in memory at run time; strides in elements.
struct RuntimeMatrix {
  llvm::Value* base = nullptr;
  llvm::Value* k_stride = nullptr;
  llvm::Value* n_stride = nullptr;
  llvm::Value* k = nullptr;
  llvm::Value* n = nullptr;
  OperandFormat format;
};

// Where packed panels go: `bytes` each, at least packed_panel_bytes(k, width, sum) or, of pairs,
// packed_pair_bytes(k, width).
struct PackedPanels {
  llvm::Value* to = nullptr;
  llvm::Value* bytes = nullptr;
  int64_t width = 0;
  // Elements side by side: bf16 and bytes stay (2 and 4); 1: elements are of the type of the sums.
  int64_t step = 1;
};

// Emits the packing of panels [first, last) of `matrix`.
void emit_pack(Emitter& emitter, const RuntimeMatrix& matrix, llvm::Value* first, llvm::Value* last,
               const PackedPanels& packed);

// A run of elements in memory; stride in elements.
struct RuntimeRun {
  llvm::Value* from = nullptr;
  llvm::Value* stride = nullptr;  // null: 1
  llvm::Value* count = nullptr;
  OperandFormat format;
};

// Emits a copy that is dense and of the type of the sums (bytes stay), and zeros of that type.
void emit_copy(Emitter& emitter, llvm::Value* to, const RuntimeRun& run);
void emit_zeros(Emitter& emitter, llvm::Value* to, llvm::Value* count, DType sum);

// Rows of a left operand that are copied to scratch, one after another.
struct StagedRows {
  llvm::Value* to = nullptr;
  llvm::Value* bytes = nullptr;  // of one: the value of staged_row_bytes()
  bool to_even = false;          // an element of zero follows each: counts are odd
};
// Emits the copy of `rows` rows, `row_stride` elements apart.
void emit_stage(Emitter& emitter, const RuntimeRun& row, llvm::Value* row_stride, llvm::Value* rows,
                const StagedRows& staged);

// Rows are padded to whole vectors of the widest target.
ir::Dim packed_panel_bytes(const ir::Dim& k, int64_t width, DType sum);
ir::Dim packed_pair_bytes(const ir::Dim& k, int64_t width);
ir::Dim staged_row_bytes(const ir::Dim& k, DType sum);

}  // namespace kiln::cpu
