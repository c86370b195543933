// Checks the caller's tensors against an engine. Messages name the tensor, the dimension, the value
// and what was expected.
#pragma once

#include <span>
#include <vector>

#include "engine/spec.h"
#include "runtime/binding.h"
#include "runtime/tensor.h"
#include "support/status.h"

namespace kiln::runtime {

// Count, dtypes, ranks, ranges; then the values of the symbols.
Result<std::vector<int64_t>> read_symbols(const engine::Spec& spec,
                                          std::span<const TensorView> inputs);
// Every dimension, for inputs whose symbols were read.
Status check_input_shapes(const engine::Spec& spec, std::span<const BoundTensor> expected,
                          std::span<const TensorView> inputs);
Status check_device(const char* role, const engine::TensorSpec& spec, size_t index,
                    const TensorView& tensor, DeviceId expected);
// Of a tensor with elements.
Status check_data(const char* role, const engine::TensorSpec& spec, size_t index,
                  const TensorView& tensor);
Status check_output(const engine::TensorSpec& spec, size_t index, const BoundTensor& expected,
                    const TensorView& output);
Status check_count(const char* role, size_t got, size_t expected);

}  // namespace kiln::runtime
