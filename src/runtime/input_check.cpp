#include "runtime/input_check.h"

#include <string>

#include "runtime/size_program.h"

namespace kiln::runtime {
namespace {

using engine::Spec;
using engine::TensorSpec;

// input "x"; input 0 where the model gave no name.
std::string label(const char* role, const TensorSpec& tensor, size_t index) {
  const std::string name = tensor.name.empty() ? std::to_string(index) : "\"" + tensor.name + "\"";
  return std::string(role) + " " + name;
}

std::string dim_label(const TensorSpec& tensor, size_t index, size_t dim) {
  return label("input", tensor, index) + " dim " + std::to_string(dim);
}

Status invalid(std::string message) {
  return Status(StatusCode::InvalidArgument, std::move(message));
}

Status check_type(const char* role, const TensorSpec& expected, size_t index,
                  const TensorView& tensor) {
  if (tensor.dtype != expected.dtype)
    return invalid(label(role, expected, index) + ": got dtype " +
                   std::string(dtype_name(tensor.dtype)) + ", expected " +
                   std::string(dtype_name(expected.dtype)));
  if (tensor.shape.size() != expected.shape.size())
    return invalid(label(role, expected, index) + ": got rank " +
                   std::to_string(tensor.shape.size()) + ", expected " +
                   std::to_string(expected.shape.size()));
  return Status();
}

// What a dimension must be, and why: "8", or "4 (s0, dim 0 of input "x")".
std::string expectation(const Spec& spec, engine::Slot slot, int64_t value) {
  const engine::SizeInstruction& size = spec.sizes[static_cast<size_t>(slot)];
  std::string text = std::to_string(value);
  if (size.op == engine::SizeOp::Constant) return text;
  text += " (" + size_str(spec, slot);
  if (size.op == engine::SizeOp::Symbol) {
    const engine::SymbolSpec& symbol = spec.symbols[static_cast<size_t>(size.immediate)];
    const auto input = static_cast<size_t>(symbol.input);
    text +=
        ", the size of " + dim_label(spec.inputs[input], input, static_cast<size_t>(symbol.dim));
  }
  return text + ")";
}

}  // namespace

Status wrong_count(const char* role, size_t got, size_t expected) {
  return invalid("got " + std::to_string(got) + " " + role + (got == 1 ? "" : "s") + ", expected " +
                 std::to_string(expected));
}

Result<std::vector<int64_t>> read_symbols(const Spec& spec, std::span<const TensorView> inputs) {
  if (inputs.size() != spec.inputs.size())
    return wrong_count("input", inputs.size(), spec.inputs.size());
  for (size_t i = 0; i < inputs.size(); ++i)
    KILN_RETURN_IF_ERROR(check_type("input", spec.inputs[i], i, inputs[i]));

  std::vector<int64_t> values;
  for (const engine::SymbolSpec& symbol : spec.symbols) {
    const auto input = static_cast<size_t>(symbol.input), dim = static_cast<size_t>(symbol.dim);
    const int64_t size = inputs[input].shape[dim];
    // A size of another form is seen when the shapes are checked.
    int64_t value = 0;
    if (__builtin_sub_overflow(size, symbol.offset, &value)) value = size;
    value /= symbol.factor;
    if (value < symbol.min || value > symbol.max)
      return Status(StatusCode::OutOfRange, dim_label(spec.inputs[input], input, dim) + ": got " +
                                                std::to_string(size) + ", expected " +
                                                std::to_string(symbol.size_at(symbol.min)) + ".." +
                                                std::to_string(symbol.size_at(symbol.max)));
    values.push_back(value);
  }
  return values;
}

Status check_input_shapes(const Spec& spec, std::span<const BoundTensor> expected,
                          std::span<const TensorView> inputs) {
  for (size_t i = 0; i < inputs.size(); ++i)
    for (size_t dim = 0; dim < inputs[i].shape.size(); ++dim) {
      const int64_t got = inputs[i].shape[dim], wanted = expected[i].shape[dim];
      if (got != wanted)
        return Status(StatusCode::OutOfRange,
                      dim_label(spec.inputs[i], i, dim) + ": got " + std::to_string(got) +
                          ", expected " + expectation(spec, spec.inputs[i].shape[dim], wanted));
    }
  return Status();
}

Status wrong_device(const char* role, const TensorSpec& spec, size_t index, DeviceId got,
                    DeviceId expected) {
  const bool same_type = got.type == expected.type;
  return invalid(label(role, spec, index) + ": got a tensor on " + device_str(got) +
                 ", expected one on " + device_str(expected) +
                 (same_type ? ", the session's device" : ", where the engine's program runs"));
}

Status null_data(const char* role, const TensorSpec& spec, size_t index) {
  return invalid(label(role, spec, index) + ": its data is null");
}

Status no_output_memory(const TensorSpec& spec, size_t index, uint64_t bytes) {
  return Status(StatusCode::OutOfMemory, label("output", spec, index) +
                                             ": the caller gave no memory for " +
                                             std::to_string(bytes) + " bytes");
}

Status no_bound(const TensorSpec& spec, size_t index) {
  return invalid(label("output", spec, index) +
                 ": got memory for a shape that depends on data and has no bound, expected a "
                 "function that allocates it (allocate_output)");
}

Status wrong_data_size(const engine::DataSizeSpec& size, int64_t got, int64_t largest) {
  const std::string most = largest > kLargestSize ? "" : std::to_string(largest);
  return Status(StatusCode::OutOfRange, "the size " + size.name + " that the data gives: got " +
                                            std::to_string(got) + ", expected " +
                                            std::to_string(size.min) + ".." + most);
}

Status wrong_output(const TensorSpec& spec, size_t index, const BoundTensor& expected,
                    const TensorView& output) {
  KILN_RETURN_IF_ERROR(check_type("output", spec, index, output));
  if (!expected.matches(output))
    return invalid(label("output", spec, index) + ": got shape " + shape_str(output.shape) +
                   ", expected " + shape_str(expected.shape));
  return invalid(label("output", spec, index) +
                 ": got a strided tensor, expected a contiguous one");
}

Status wrong_update(const engine::Spec& spec, size_t output, size_t input) {
  return Status(StatusCode::InvalidArgument,
                "output \"" + spec.outputs[output].name + "\" overlaps the input \"" +
                    spec.inputs[input].name +
                    "\" that it updates, expected the same memory without gaps, or other memory");
}

Status updated_twice(const engine::Spec& spec, size_t input, size_t other) {
  return Status(StatusCode::InvalidArgument,
                "the inputs \"" + spec.inputs[input].name + "\" and \"" + spec.inputs[other].name +
                    "\" overlap and are both updated in place, expected memory of their own");
}

}  // namespace kiln::runtime
