// What a run says when a kernel found its data wrong.
#pragma once

#include <cstdint>
#include <span>

#include "engine/spec.h"
#include "runtime/tensor.h"
#include "support/status.h"

namespace kiln::runtime {

struct FailedStep {
  const engine::ProgramSpec& program;
  size_t step = 0;
  uint64_t failed = 0;  // bit i: check i of the step; not 0
};

// The status for the first check that failed. Looks for the value that failed in the inputs where it
// came from there; there are none where they are not in host memory, or gone.
Status check_failure(const engine::Spec& spec, const FailedStep& step,
                     std::span<const int64_t> symbols, std::span<const TensorView> inputs);

}  // namespace kiln::runtime
