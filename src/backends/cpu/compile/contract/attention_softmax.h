// The softmax of attention: rows of scores in scratch become powers, and the inverses of their
// sums.
#pragma once

#include "backends/cpu/compile/contract/contraction.h"

namespace kiln::cpu {

// Where scores lie: column j of row r is at base + r * row_bytes + (j / width) * group_bytes +
// (j % width) elements, of the type of the sums. A group is a whole number of vectors.
struct ScoreLayout {
  llvm::Value* base = nullptr;
  int64_t width = 32;
  int64_t row_bytes = 0, group_bytes = 0;
  // Powers take the place of scores, as elements of this type and groups of so many bytes: those of
  // scores, or bf16 on a machine with AVX512-BF16, in at most as many bytes.
  DType power = DType::F32;
  int64_t power_group_bytes = 0;
};

struct SoftmaxRows {
  Span rows;                            // of the score matrix; row 0 of the layout is rows.begin
  llvm::Value* groups = nullptr;        // how many are computed
  llvm::Value* keys = nullptr;          // the extent of j
  llvm::Value* inverse_sums = nullptr;  // one a row; 0 for a row that keeps nothing
};

// Emits power = exp(scale * score + bias - the row's highest), and 0 where a key is masked out, for
// all columns of the groups.
void emit_softmax(Emitter& emitter, const plan::Attention& attention, const ScoreLayout& scores,
                  const SoftmaxRows& rows);

}  // namespace kiln::cpu
