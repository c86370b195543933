// Operands of contractions in the order in which the micro-kernel reads them.
//
// A packed B is [panels][K][panel width], zero-padded to whole panels: one panel is a contiguous
// run of memory, and one step of the micro-kernel reads one row of it. CPU levels that choose one
// width share the packed weight: it is made once, and stored once.
#pragma once

#include <cstdint>
#include <string>

#include "backends/cpu/compile/emit/emitter.h"

namespace kiln::cpu {

// A constant matrix inside a literal; strides in elements.
struct ConstantMatrix {
  int64_t offset = 0, k_stride = 0, n_stride = 0;
  int64_t k = 0, n = 0;
  int64_t batches = 1, batch_stride = 0;  // packed one after another
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
  DType dtype = DType::F32;
};

// Where packed panels go: `bytes` each, at least packed_panel_bytes(k, width).
struct PackedPanels {
  llvm::Value* to = nullptr;
  llvm::Value* bytes = nullptr;
  int64_t width = 0;
};

// Emits the packing of panels [first, last) of `matrix`.
void emit_pack(Emitter& emitter, const RuntimeMatrix& matrix, llvm::Value* first, llvm::Value* last,
               const PackedPanels& packed);

// Emits the copy of `count` elements to f32, and of zeros.
void emit_copy(Emitter& emitter, llvm::Value* to, llvm::Value* from, DType from_dtype,
               llvm::Value* count);
void emit_zeros(Emitter& emitter, llvm::Value* to, llvm::Value* count);

// Rows are padded to whole vectors of the widest target.
ir::Dim packed_panel_bytes(const ir::Dim& k, int64_t width);

}  // namespace kiln::cpu
