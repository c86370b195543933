// The running half of the C API: runs. Views of the caller's tensors go in, statuses come out. This is
// what a call costs.
#include <algorithm>
#include <string>

#include "capi/guarded.h"
#include "capi/handles.h"
#include "capi/options.h"
#include "capi/tensor_check.h"
#include "capi/views.h"
#include "runtime/session.h"

using kiln::guarded;
using kiln::Status;
using kiln::StatusCode;

namespace kiln {
namespace {

void set_view(const kiln_tensor& tensor, runtime::TensorView& view) {
  const auto rank = static_cast<size_t>(tensor.rank);
  view.data = tensor.data;
  view.dtype = static_cast<DType>(tensor.dtype);
  view.shape = {tensor.shape, rank};
  view.strides = {tensor.strides, tensor.strides == nullptr ? 0 : rank};
  view.device = {static_cast<DeviceType>(tensor.device.type),
                 tensor.device.type == KILN_CPU ? 0 : tensor.device.index};
}

Status null_tensors(const char* role) {
  return Status(StatusCode::InvalidArgument, std::string("the ") + role + "s are null");
}

void* allocate_output(void* user, const runtime::OutputRequest& request) {
  const auto& options = *static_cast<const kiln_run_options*>(user);
  const kiln_output output{.struct_size = sizeof(kiln_output),
                           .index = request.index,
                           .shape = request.tensor.shape.data(),
                           .bytes = request.tensor.bytes,
                           .device = to_c(request.device),
                           .dtype = static_cast<kiln_dtype>(request.tensor.dtype),
                           .rank = static_cast<int32_t>(request.tensor.shape.size())};
  return options.allocate_output(options.output_user, &output);
}

Status two_kinds_of_outputs() {
  return Status(StatusCode::InvalidArgument,
                "got outputs and kiln_run_options.allocate_output, expected one of them");
}

}  // namespace

Status Views::assign(const char* role, const kiln_tensor* tensors, size_t count) {
  if (count > 0 && tensors == nullptr) return null_tensors(role);
  if (count > few_.size()) many_.resize(count);
  views_ = {count > few_.size() ? many_.data() : few_.data(), count};
  const auto* at = reinterpret_cast<const std::byte*>(tensors);
  const size_t stride = count > 0 ? tensors->struct_size : 0;
  for (size_t i = 0; i < count; ++i, at += stride) {
    const auto& tensor = *reinterpret_cast<const kiln_tensor*>(at);
    if (!is_plain(tensor) || tensor.struct_size != stride)
      KILN_RETURN_IF_ERROR(check_tensor(role, i, tensor, stride));
    set_view(tensor, views_[i]);
  }
  return Status();
}

}  // namespace kiln

namespace {

Status wrong_count_of_outputs(size_t got, size_t expected) {
  return Status(StatusCode::InvalidArgument,
                "got " + std::to_string(got) + " outputs, expected " + std::to_string(expected));
}

using Shapes = kiln::Result<std::span<const kiln::runtime::BoundTensor>>;

Status write_shapes(const Shapes& outputs, int64_t (*shapes)[KILN_MAX_RANK]) {
  if (!outputs.ok()) return outputs.status();
  for (size_t i = 0; i < outputs->size(); ++i) std::ranges::copy((*outputs)[i].shape, shapes[i]);
  return Status();
}

}  // namespace

extern "C" {

kiln_status kiln_session_output_shapes(kiln_session* session, const kiln_tensor* inputs,
                                       size_t num_inputs, int64_t (*shapes)[KILN_MAX_RANK],
                                       size_t num_outputs) {
  return guarded([&]() -> Status {
    KILN_REQUIRE(session);
    if (num_outputs > 0) KILN_REQUIRE(shapes);
    const size_t expected = session->session->engine().spec().outputs.size();
    if (num_outputs != expected) return wrong_count_of_outputs(num_outputs, expected);
    kiln::Views views;
    KILN_RETURN_IF_ERROR(views.assign("input", inputs, num_inputs));
    return write_shapes(session->session->output_shapes(views.get()), shapes);
  });
}

kiln_status kiln_session_result_shapes(kiln_session* session, int64_t (*shapes)[KILN_MAX_RANK],
                                       size_t num_outputs) {
  return guarded([&]() -> Status {
    KILN_REQUIRE(session);
    if (num_outputs > 0) KILN_REQUIRE(shapes);
    const size_t expected = session->session->engine().spec().outputs.size();
    if (num_outputs != expected) return wrong_count_of_outputs(num_outputs, expected);
    return write_shapes(session->session->result_shapes(), shapes);
  });
}

kiln_status kiln_session_run(kiln_session* session, const kiln_tensor* inputs, size_t num_inputs,
                             const kiln_tensor* outputs, size_t num_outputs,
                             const kiln_run_options* options) {
  return guarded([&]() -> Status {
    KILN_REQUIRE(session);
    kiln::Views input_views, output_views;
    KILN_RETURN_IF_ERROR(input_views.assign("input", inputs, num_inputs));
    KILN_RETURN_IF_ERROR(output_views.assign("output", outputs, num_outputs));
    if (options == nullptr) return session->session->run(input_views.get(), output_views.get());
    kiln_run_options current{};
    if (options->struct_size != sizeof(current)) {
      KILN_RETURN_IF_ERROR(
          kiln::copy_options("kiln_run_options", options, &current, sizeof(current)));
      options = &current;
    }
    kiln::runtime::RunOptions run_options;
    run_options.stream = options->stream;
    run_options.cancel = options->cancel;
    if (options->allocate_output != nullptr) {
      if (num_outputs > 0) return kiln::two_kinds_of_outputs();
      run_options.outputs = {const_cast<kiln_run_options*>(options), kiln::allocate_output};
    }
    return session->session->run(input_views.get(), output_views.get(), run_options);
  });
}

}  // extern "C"
