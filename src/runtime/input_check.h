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

// The statuses for what a run found wrong. `role` is "input" or "output".
Status wrong_count(const char* role, size_t got, size_t expected);
Status wrong_device(const char* role, const engine::TensorSpec& spec, size_t index, DeviceId got,
                    DeviceId expected);
Status null_data(const char* role, const engine::TensorSpec& spec, size_t index);
Status no_output_memory(const engine::TensorSpec& spec, size_t index, uint64_t bytes);
// An output that does not match, or is not contiguous.
Status no_bound(const engine::TensorSpec& spec, size_t index);
Status wrong_data_size(const engine::DataSizeSpec& size, int64_t got, int64_t largest);
Status wrong_output(const engine::TensorSpec& spec, size_t index, const BoundTensor& expected,
                    const TensorView& output);

// Output `output` lies partly, or with gaps, in the memory of the input that it updates.
Status wrong_update(const engine::Spec& spec, size_t output, size_t input);
// Two inputs that are updated in place are the same memory.
Status updated_twice(const engine::Spec& spec, size_t input, size_t other);

}  // namespace kiln::runtime
