// Where a contraction stores its result, and storing it elsewhere.
#pragma once

#include <optional>

#include "plan/form/access.h"
#include "plan/form/program.h"

namespace kiln::plan {

struct ContractionResult {
  BufferId buffer = -1;
  std::vector<Loop> loops;  // over the elements, the columns last
  Index offset;             // of the element at `loops`
};
// Nothing for a loop nest.
std::optional<ContractionResult> contraction_result(const Kernel& kernel);

// Where a MatMul or Convolution keeps its epilogue; null for other kernels.
Expr* epilogue_of(Kernel& kernel);
// Whether the target lets the epilogue of such a kernel, which may be fused more work into, be
// `expr`. True for kernels without one.
bool epilogue_takes(const Program& program, const Kernel& kernel, const Expr& expr);

// Whether the kernel writes every element of its result's buffer.
bool covers_buffer(const Program& program, const ContractionResult& result);

// Makes the kernel store to `indices` of `buffer`, in terms of the result's loops; false, with
// nothing changed, if it cannot.
bool redirect(const Program& program, Kernel& kernel, const ContractionResult& result,
              BufferId buffer, const Indices& indices);

}  // namespace kiln::plan
