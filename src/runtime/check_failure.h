// What a run says when a kernel found its data wrong.
#pragma once

#include <cstdint>
#include <span>

#include "engine/spec.h"
#include "runtime/tensor.h"
#include "support/status.h"

namespace kiln::runtime {

// The status for the first of a step's checks that failed; `failed` is not 0 and has bit i for
// check i. Looks for the value that failed in the inputs where it came from there.
Status check_failure(const engine::Spec& spec, const engine::StepSpec& step, uint64_t failed,
                     std::span<const int64_t> symbols, std::span<const TensorView> inputs);

}  // namespace kiln::runtime
