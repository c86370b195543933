// How attention is cut into blocks on Hopper (attention_wgmma.cuh).
#pragma once

#include <cstdint>

namespace kiln::cuda {

// Sizes to optimise for.
struct AttentionSize {
  int64_t batches = 1, rows = 1, keys = 1;
  int64_t head_pad = 16, value_pad = 16;  // multiples of 16
  bool causal = false;
  bool adjusts = false;  // masks or biases at each score
};

struct GroupCut {
  int groups = 1;     // of 64 rows each
  int keys = 64;      // of a step
  int last_keys = 0;  // of a last step that is short; 0: as others
  int stages = 2, query_stages = 1;
  int blocks = 1;  // of a multiprocessor
  int64_t head_pad = 16, value_pad = 16;

  int rows() const { return groups * 64; }
  int threads() const { return (groups + 1) * 128; }
  // What a block is started with is shared anew between loaders and readers.
  int loader_registers() const;
  int reader_registers() const;
  int64_t shared_bytes() const;
};

// The cut that takes the least time, by a model.
GroupCut choose_group_cut(const AttentionSize& size, int multiprocessors);

}  // namespace kiln::cuda
