// Runs of bytes, by whole registers.
#pragma once

#include "backends/cpu/compile/emit/emitter.h"

namespace kiln::cpu {

// to[0, count) = from[0, count), and = byte. They may lie anywhere; nothing beyond them is touched.
void emit_copy_bytes(Emitter& emitter, llvm::Value* to, llvm::Value* from, llvm::Value* count);
void emit_fill_bytes(Emitter& emitter, llvm::Value* to, llvm::Value* count, uint8_t byte);

// A copy of pixels of `from` elements of 16 bits, one after another, to places `to` elements apart with zeros behind
// each. Of at most kSpreadBytes; for targets with Avx512Bw.
constexpr int64_t kSpreadBytes = 64;
struct PixelSizes {
  int from = 0, to = 0;
};
void emit_spread(Emitter& emitter, llvm::Value* to, llvm::Value* from, llvm::Value* pixels,
                 PixelSizes sizes);

}  // namespace kiln::cpu
