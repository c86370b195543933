#include "backends/cpu/device/bound_call.h"

#include <span>

#include "support/crc32.h"

namespace kiln::cpu {
namespace {

// Nothing for sizes that no memory has.
std::optional<uint64_t> bytes_of(DType dtype, std::span<const int64_t> shape) {
  uint64_t bytes = dtype_size(dtype);
  bool is_empty = false, fits = true;
  for (const int64_t size : shape) {
    if (size < 0) return std::nullopt;
    is_empty |= size == 0;
    fits &= !__builtin_mul_overflow(bytes, static_cast<uint64_t>(size), &bytes);
  }
  if (is_empty) return 0;
  return fits ? std::optional(bytes) : std::nullopt;
}

}  // namespace

Result<std::unique_ptr<BoundCall>> BoundCall::create(const engine::ProgramSpec& program,
                                                     const engine::StepSpec& step,
                                                     const BindRequest& request,
                                                     const Arguments& arguments) {
  const engine::KernelSpec& kernel = program.kernels[static_cast<size_t>(step.kernel)];
  const std::string name = engine::called_kernel(kernel.function);
  const auto function = find_kernel(name);
  if (!function) return missing_kernel(name);
  std::unique_ptr<BoundCall> call(new BoundCall(kernel, *function, arguments));
  KILN_RETURN_IF_ERROR(call->add_tensors(program, step, request, arguments.params));
  return call;
}

// The parameters are valid as far as they are constant (engine/validate.cpp).
Status BoundCall::add_tensors(const engine::ProgramSpec& program, const engine::StepSpec& step,
                              const BindRequest& request, const int64_t* params) {
  size_t inputs = 0;
  for (size_t i = 0; i < step.buffers.size(); ++i) {
    const auto dtype = static_cast<DType>(params[0]);
    const std::span shape(params + 2, static_cast<size_t>(params[1]));
    params += 2 + shape.size();
    const engine::BufferSpec& buffer = program.buffers[static_cast<size_t>(step.buffers[i])];
    const uint64_t held =
        buffer.kind == engine::BufferKind::Constant
            ? buffer.constant_bytes
            : static_cast<uint64_t>(request.sizes[static_cast<size_t>(buffer.bytes)]);
    if (bytes_of(dtype, shape) != held)
      return Status(StatusCode::InvalidEngine, "damaged engine: tensor " + std::to_string(i) +
                                                   " of a call of " + name_ +
                                                   " has another size than its buffer");
    tensors_.push_back({.struct_size = sizeof(kiln_tensor),
                        .data = nullptr,
                        .dtype = static_cast<kiln_dtype>(dtype),
                        .rank = static_cast<int32_t>(shape.size()),
                        .shape = shape.data(),
                        .strides = nullptr,
                        .device = {KILN_CPU, 0}});
    inputs += step.writes[i] == -1 ? 1 : 0;
  }
  call_ = {.struct_size = sizeof(kiln_kernel_call),
           .inputs = tensors_.data(),
           .num_inputs = inputs,
           .outputs = tensors_.data() + inputs,
           .num_outputs = tensors_.size() - inputs,
           .arguments = json_.c_str(),
           .set_error = set_error,
           .run = this};
  return Status();
}

std::vector<uint32_t> BoundCall::input_checksums() const {
  std::vector<uint32_t> sums;
  for (const kiln_tensor& input : std::span(call_.inputs, call_.num_inputs)) {
    const uint64_t bytes = *bytes_of(static_cast<DType>(input.dtype),
                                     std::span(input.shape, static_cast<size_t>(input.rank)));
    sums.push_back(crc32({static_cast<const std::byte*>(input.data), bytes}));
  }
  return sums;
}

bool BoundCall::fail(const std::string& reason) {
  failure_ = Status(StatusCode::KernelFailed, "[" + name_ + "] the kernel failed: " + reason);
  return false;
}

bool BoundCall::run() {
  for (size_t i = 0; i < tensors_.size(); ++i) tensors_[i].data = buffers_[i];
  error_.clear();
  const std::vector<uint32_t> before =
      is_known_to_read_ ? std::vector<uint32_t>() : input_checksums();
  const int result = function_.function(function_.user, &call_);
  if (result != 0) return fail(error_.empty() ? "it returned " + std::to_string(result) : error_);
  if (!is_known_to_read_) {
    const std::vector<uint32_t> after = input_checksums();
    for (size_t i = 0; i < after.size(); ++i)
      if (after[i] != before[i])
        return fail("it changed its input " + std::to_string(i) +
                    ", expected one that only reads its inputs: an operator that changes its "
                    "arguments cannot be a part of an engine");
    is_known_to_read_ = true;
  }
  return true;
}

void BoundCall::set_error(const kiln_kernel_call* call, const char* text) {
  static_cast<BoundCall*>(call->run)->error_ = text == nullptr ? "" : text;
}

}  // namespace kiln::cpu
