// Captured runs of a bound program, by the addresses that they work on.
//
// A program is a few hundred launches of a few microseconds of host time each; a CUDA graph of them is
// one launch. The addresses of inputs, outputs and workspace are part of a graph. Callers that use
// their tensors again, and PyTorch's allocator, which gives the same blocks again in every step of a
// loop, come with the same addresses over and over; so a run is captured when its addresses are seen
// for the second time, and the latest few graphs are kept.
#pragma once

#include <cstddef>
#include <cstdint>
#include <list>
#include <span>
#include <vector>

#include "backends/cuda/device/driver.h"

namespace kiln::cuda {

class GraphCache {
 public:
  GraphCache() = default;
  ~GraphCache() { clear(); }
  GraphCache(const GraphCache&) = delete;
  GraphCache& operator=(const GraphCache&) = delete;

  struct Entry {
    std::vector<uint64_t> addresses;
    api::CUgraphExec graph = nullptr;  // null until it is captured
  };

  // The entry for these addresses, the most recently used from now on; `is_new` if they were not
  // among the latest.
  Entry& find(std::span<const uint64_t> addresses, bool& is_new);
  void clear();

 private:
  std::list<Entry> entries_;  // the most recently used first
};

}  // namespace kiln::cuda
