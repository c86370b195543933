// The innermost loop of every contraction: a register tile of accumulators over a run of K steps.
//
// One step is one scalar of A per row and one row of B of `vectors` vectors. What there is less of stays in
// registers for the step: all vectors of B are loaded first, then each row is a scalar load, a splat and its
// FMAs; where there are fewer rows than vectors, all rows are splats first, and vectors of B follow each other,
// those of a single row as operands of its FMAs. That order matters: LLVM does not undo a bad one, and a tile that needs one register
// more than there are loses half of its speed.
//
// Operands of bf16 may come in pairs: then a step is two of K, which B holds side by side for each
// column, and A one after the other. Machines with AVX512-BF16 multiply and add both in one
// instruction (vdpbf16ps: as the sum of two FMAs, denormals taken as zero); others get the first
// out of a vector of pairs by a shift and the second by a mask.
//
// Bytes come in quads, u8 in A and i8 in B, with sums of i32. Machines with VNNI multiply and add four in one
// instruction (vpdpbusd, which does not saturate); others widen them to 16 bits, the first and third of a quad
// and then the second and fourth, and multiply and add two at a time (vpmaddwd): the bytes of vpmaddubsw would
// saturate.
#pragma once

#include <vector>

#include "backends/cpu/compile/contract/operand_format.h"
#include "backends/cpu/compile/emit/emitter.h"

namespace kiln::cpu {

// What the steps of a tile read.
enum class Steps : uint8_t {
  Single,
  Pairs,         // of bf16, multiplied as such
  WidenedPairs,  // of bf16 in B, of f32 in A
  Quads,         // of bytes, multiplied as such
  WidenedQuads,  // of bytes, multiplied as 16 bits
};
// Elements along k.
inline int64_t elements_of(Steps steps) {
  if (steps == Steps::Single) return 1;
  return steps == Steps::Quads || steps == Steps::WidenedQuads ? 4 : 2;
}
// How a target takes steps of bytes.
Steps byte_steps(const Target& target);

struct Tile {
  int rows = 1;
  int vectors = 1;
  DType sum = DType::F32;
  Steps steps = Steps::Single;
  // Vector registers of a vector of sums.
  int vector_registers() const { return static_cast<int>(dtype_size(sum) / 4); }
  // Whether vectors of B follow each other in a step, with all rows of A in registers.
  bool goes_by_vectors() const {
    return rows < vectors && (steps == Steps::Single || steps == Steps::WidenedPairs);
  }
  // Those that stay live in the loop: accumulators, one step of B, one splat of A; of pairs that are
  // widened the mask, and beyond two vectors one for what LLVM loads early; of quads that are, a product too.
  // By vectors: accumulators, splats of all rows, a vector of B and what it becomes; of pairs LLVM loads all of them.
  int registers() const {
    if (goes_by_vectors() && steps == Steps::Single)
      return (rows * vectors + rows + 1) * vector_registers() + 1;
    if (goes_by_vectors()) return rows * vectors + 2 * rows + vectors + 1;
    int widening = steps != Steps::WidenedPairs ? 0 : vectors > 2 ? 2 : 1;
    if (steps == Steps::WidenedQuads) widening = 3;
    return (rows * vectors + vectors) * vector_registers() + 1 + widening;
  }
};

// The most rows of a tile of that many vectors that fits the registers.
int most_rows(const Target& target, Tile tile);

// Where a tile reads; steps and offsets in bytes.
//   A of row r at step k:     a + rows[r] + k * a_step
//   B of vector v at step k:  b + k * b_step + v * (bytes of a vector)
struct TileOperands {
  llvm::Value* a = nullptr;
  std::vector<llvm::Value*> rows;
  llvm::Value* a_step = nullptr;
  llvm::Value* b = nullptr;
  llvm::Value* b_step = nullptr;
  int64_t b_alignment = 0;           // bytes; 0: that of an element
  OperandFormat a_format, b_format;  // widened as they are read: B by vectors, A one by one; not
                                     // looked at where steps are pairs
  bool prefetch_b = false;           // for a B that may come from memory
  // What this tile fetches to the second-level cache instead, so many bytes a step: its share of the panel after this one.
  llvm::Value* next_b = nullptr;
  int64_t next_bytes = 0;
};

// Row-major: rows x vectors.
using Accumulators = std::vector<llvm::Value*>;

Accumulators zero_tile(Emitter& emitter, Tile tile);

// Sums in progress, and where the next step reads. The addresses travel with the sums because LLVM
// would move their computation into the loop.
struct Run {
  llvm::Value *a = nullptr, *b = nullptr;
  Accumulators sums;
};

// `run` after `steps` more steps. Small tiles take several steps at once, to hide the latency of
// the FMA.
Run multiply_run(Emitter& emitter, Tile tile, const TileOperands& operands, llvm::Value* steps,
                 Run run);

// `run` after one element of A, of steps that are pairs: what lies behind it may be anything. `a` stays.
Run multiply_half_pair(Emitter& emitter, Tile tile, const TileOperands& operands, Run run);

// A single run from zero: the sums.
Accumulators multiply_run(Emitter& emitter, Tile tile, const TileOperands& operands,
                          llvm::Value* steps);

// a * b + c, rounded once.
llvm::Value* fma(Emitter& emitter, llvm::Value* a, llvm::Value* b, llvm::Value* c);

// Asks for the cache line at an address, which may be anything.
enum class CacheLevel : uint8_t { First, Second };
void fetch_line(Emitter& emitter, llvm::Value* address, CacheLevel level = CacheLevel::First);

// The same address or integer, of which LLVM does not know that it is: it does not read again what it has read
// there, nor compute it again where it is used.
llvm::Value* another_name(Emitter& emitter, llvm::Value* value);
// The same address, which LLVM takes to be known after a value: what is read there is not read before.
llvm::Value* after(Emitter& emitter, llvm::Value* address, llvm::Value* value);
// base + offset bytes.
llvm::Value* byte_offset(Emitter& emitter, llvm::Value* base, llvm::Value* offset);
// As many elements of a floating type as there are lanes.
llvm::Type* vector_type(Emitter& emitter, DType dtype);

}  // namespace kiln::cpu
