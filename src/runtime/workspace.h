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
};

// Buffers that are live in the same step do not overlap, aliases apart. Largest first, each into
// the smallest gap that takes it. `sizes` are the slots of the size program.
Result<WorkspacePlan> plan_workspace(const engine::Spec& spec, std::span<const int64_t> sizes);

}  // namespace kiln::runtime
