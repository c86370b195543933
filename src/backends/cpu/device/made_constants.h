// Constants that a load makes of others: filters as Winograd's algorithm multiplies them, which would be most of a file.
#pragma once

#include <cstddef>
#include <span>
#include <vector>

#include "engine/spec.h"
#include "support/aligned_buffer.h"
#include "support/status.h"

namespace kiln::cpu {

class MadeConstants {
 public:
  // Of a valid program. Constants that are made alike of one place in the weights are made once. `is_mapped`: the
  // weights are a FileMap's, and pages that were read for this are given back. InvalidEngine: they would be out of
  // proportion to the weights. A stripped engine's are not made.
  static Result<MadeConstants> make(const engine::ProgramSpec& program,
                                    std::span<const std::byte> weights, bool is_mapped);

  // By number of a buffer of the program that is made.
  const std::byte* of(size_t buffer) const { return by_buffer_[buffer]; }

 private:
  AlignedBuffer memory_;
  std::vector<const std::byte*> by_buffer_;  // null: nothing is made
};

// G g G^T of every filter, in f64 and rounded once. `from` and `to` are as large as `winograd` says.
void make_winograd_filters(const engine::WinogradSpec& winograd, const std::byte* from,
                           std::byte* to, int threads);

}  // namespace kiln::cpu
