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

// What runs between two reads of data sizes: steps of a program, and how many data sizes are known then.
// The last may be without steps.
struct ProgramPart {
  size_t first_step = 0, end_step = 0;
  size_t known = 0;
};
// One for a program without data sizes.
std::vector<ProgramPart> parts_of(const engine::ProgramSpec& program);
// By buffer: the part whose workspace has a temporary.
std::vector<int32_t> parts_of_buffers(const engine::ProgramSpec& program,
                                      const std::vector<ProgramPart>& parts);

// Buffers that are live in the same step do not overlap, aliases apart. Largest first, each into
// the smallest gap that takes it; of more than kMostPlacedBySize, in the order of the steps.
// `sizes` are the values of the slots. Each part has a workspace of its own, which stays for the parts
// behind it; buffers of other parts are not placed.
Result<WorkspacePlan> plan_workspace(const engine::ProgramSpec& program,
                                     std::span<const int64_t> sizes,
                                     std::span<const int32_t> buffer_parts = {}, int32_t part = 0);

}  // namespace kiln::runtime
