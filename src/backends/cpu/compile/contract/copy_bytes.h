// Runs of bytes, by whole registers.
#pragma once

#include "backends/cpu/compile/emit/emitter.h"

namespace kiln::cpu {

// to[0, count) = from[0, count), and = byte. They may lie anywhere; nothing beyond them is touched.
void emit_copy_bytes(Emitter& emitter, llvm::Value* to, llvm::Value* from, llvm::Value* count);
void emit_fill_bytes(Emitter& emitter, llvm::Value* to, llvm::Value* count, uint8_t byte);

}  // namespace kiln::cpu
