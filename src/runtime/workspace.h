// Where temporaries lie in the workspace, for one set of input shapes.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "engine/spec.h"
#include "support/status.h"

namespace kiln::runtime {

struct WorkspacePlan {
  std::vector<uint64_t> offsets;  // by buffer; meaningful for temporaries
  uint64_t size = 0;
  uint64_t visits = 0;  // places that were looked at: the work of the planning
};

// More temporaries than any model has are placed by a faster rule, which wastes more.
inline constexpr size_t kMostPlacedBySize = 4096;

// Buffers that are live in the same step do not overlap, aliases apart. Largest first, each into
// the smallest gap that takes it; of more than kMostPlacedBySize, in the order of the steps.
// `sizes` are the values of all slots.
Result<WorkspacePlan> plan_workspace(const engine::ProgramSpec& program,
                                     std::span<const int64_t> sizes);

}  // namespace kiln::runtime
