// What packing emits for one panel.
#pragma once

#include "backends/cpu/compile/contract/pack.h"

namespace kiln::cpu {

// A panel of pairs of bf16 that begins at column `start` of the matrix, to `to`: for targets with masks
// for 16 bits (Avx512Bw). Columns beyond the matrix repeat its last one or are zeros, and so is the step
// behind an odd number of them.
void emit_pack_pairs(Emitter& emitter, const RuntimeMatrix& matrix, int64_t width,
                     llvm::Value* start, llvm::Value* to);

// In: as many vectors as they have lanes, rows of a square. Out: its columns.
std::vector<llvm::Value*> transpose_square(Emitter& emitter, std::vector<llvm::Value*> rows);

// A constant that is 1: a stride of neighbours.
bool is_one(llvm::Value* value);

}  // namespace kiln::cpu
