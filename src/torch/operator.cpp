// The PyTorch operator: kiln::execute_engine(Tensor[] inputs, Tensor engine, str spec) -> Tensor[].
//
// `engine` holds the bytes of an engine as a uint8 tensor, so a program that uses it needs no
// custom class and can be saved by whatever saves tensors. `spec` gives the outputs' dtypes and
// shapes for tracing (python/torch_tensorrt/ _operator.py evaluates it); running does not need it,
// the engine knows.

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/tensor.h>

#include <array>
#include <optional>
#include <span>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "torch/engine_cache.h"
#include "torch/engine_modes.h"

namespace kiln::torch_op {
namespace {

using ::torch::stable::Tensor;

struct DTypePair {
  int32_t torch;
  kiln_dtype kiln;
};

const std::array<DTypePair, 10>& dtype_pairs() {
  static const std::array<DTypePair, 10> kPairs{{{aoti_torch_dtype_float32(), KILN_F32},
                                                 {aoti_torch_dtype_float64(), KILN_F64},
                                                 {aoti_torch_dtype_float16(), KILN_F16},
                                                 {aoti_torch_dtype_bfloat16(), KILN_BF16},
                                                 {aoti_torch_dtype_int8(), KILN_I8},
                                                 {aoti_torch_dtype_uint8(), KILN_U8},
                                                 {aoti_torch_dtype_int16(), KILN_I16},
                                                 {aoti_torch_dtype_int32(), KILN_I32},
                                                 {aoti_torch_dtype_int64(), KILN_I64},
                                                 {aoti_torch_dtype_bool(), KILN_BOOL}}};
  return kPairs;
}

std::optional<kiln_dtype> to_kiln(int32_t dtype) {
  for (const DTypePair& pair : dtype_pairs()) {
    if (pair.torch == dtype) {
      return pair.kiln;
    }
  }
  return std::nullopt;
}

int32_t to_torch(kiln_dtype dtype) {
  for (const DTypePair& pair : dtype_pairs()) {
    if (pair.kiln == dtype) {
      return pair.torch;
    }
  }
  throw std::runtime_error(
      "[execute_engine] the engine has an output of a dtype that PyTorch lacks");
}

bool is_on_cpu(const Tensor& tensor) {
  int32_t type = 0;
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_device_type(tensor.get(), &type));
  return type == aoti_torch_device_type_cpu();
}

kiln_tensor view_input(const Tensor& tensor, size_t index) {
  if (!is_on_cpu(tensor)) {
    throw std::runtime_error(
        "[execute_engine] input " + std::to_string(index) +
        " is not in CPU memory, but the engine was compiled for the CPU: pass tensor.cpu()");
  }
  int32_t dtype = 0;
  int64_t rank = 0;
  int64_t *shape = nullptr, *strides = nullptr;
  void* data = nullptr;
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_dtype(tensor.get(), &dtype));
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_dim(tensor.get(), &rank));
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_sizes(tensor.get(), &shape));
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_strides(tensor.get(), &strides));
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_data_ptr(tensor.get(), &data));
  const std::optional<kiln_dtype> kiln_type = to_kiln(dtype);
  if (!kiln_type) {
    throw std::runtime_error("[execute_engine] input " + std::to_string(index) +
                             " has a dtype that engines do not take (PyTorch's code " +
                             std::to_string(dtype) + ")");
  }
  return {data, *kiln_type, static_cast<int32_t>(rank), shape, strides};
}

Tensor empty_output(const OutputInfo& info, const int64_t* shape) {
  std::array<int64_t, KILN_MAX_RANK> strides;
  int64_t stride = 1;
  for (int32_t axis = info.rank - 1; axis >= 0; --axis) {
    strides[static_cast<size_t>(axis)] = stride;
    stride *= shape[axis] > 0 ? shape[axis] : 1;
  }
  AtenTensorHandle handle = nullptr;
  TORCH_ERROR_CODE_CHECK(aoti_torch_empty_strided(info.rank, shape, strides.data(),
                                                  to_torch(info.dtype),
                                                  aoti_torch_device_type_cpu(), 0, &handle));
  return Tensor(handle);
}

// A session borrowed from a loaded engine for the length of one call.
class SessionLease {
 public:
  SessionLease(LoadedEngine& engine, int num_threads)
      : engine_(engine), num_threads_(num_threads), session_(engine.take_session(num_threads)) {}
  ~SessionLease() { engine_.give_back(std::move(session_), num_threads_); }
  SessionLease(const SessionLease&) = delete;
  SessionLease& operator=(const SessionLease&) = delete;
  kiln_session* get() const { return session_.get(); }

 private:
  LoadedEngine& engine_;
  int num_threads_;
  SessionPtr session_;
};

void check_engine_tensor(const Tensor& engine) {
  int32_t dtype = 0;
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_dtype(engine.get(), &dtype));
  if (dtype != aoti_torch_dtype_uint8() || engine.dim() != 1 || !engine.is_contiguous()) {
    throw std::runtime_error(
        "[execute_engine] the engine is not a contiguous one-dimensional uint8 tensor");
  }
  if (!is_on_cpu(engine)) {
    throw std::runtime_error(
        "[execute_engine] the engine's bytes are not in CPU memory: call .cpu() on the module");
  }
}

std::vector<Tensor> execute_engine(std::vector<Tensor> inputs, Tensor engine,
                                   std::string /*spec*/) {
  check_engine_tensor(engine);
  std::vector<kiln_tensor> views(inputs.size());
  for (size_t i = 0; i < inputs.size(); ++i) {
    views[i] = view_input(inputs[i], i);
  }
  uint32_t num_threads = 0;
  TORCH_ERROR_CODE_CHECK(torch_get_num_threads(&num_threads));
  const std::shared_ptr<LoadedEngine> loaded = EngineCache::instance().find_or_load(engine);
  const SessionLease session(*loaded, static_cast<int>(num_threads));

  const size_t num_outputs = loaded->outputs().size();
  std::vector<std::array<int64_t, KILN_MAX_RANK>> shapes(num_outputs);
  auto* shape_data = reinterpret_cast<int64_t(*)[KILN_MAX_RANK]>(shapes.data());
  check(kiln_session_output_shapes(session.get(), views.data(), views.size(), shape_data,
                                   num_outputs));

  const std::shared_ptr<EngineModes> modes = find_modes(engine.const_data_ptr());
  std::vector<Tensor> kept;
  if (modes != nullptr) {
    modes->before_run(session.get());
    kept = modes->take_outputs();
  }
  std::vector<Tensor> outputs;
  std::vector<kiln_tensor> output_views;
  outputs.reserve(num_outputs);
  for (size_t i = 0; i < num_outputs; ++i) {
    const OutputInfo& info = loaded->outputs()[i];
    const std::span<const int64_t> shape(shapes[i].data(), static_cast<size_t>(info.rank));
    const bool reuse = i < kept.size() && can_reuse(kept[i], to_torch(info.dtype), shape, views);
    outputs.push_back(reuse ? kept[i] : empty_output(info, shapes[i].data()));
    output_views.push_back(
        {outputs.back().mutable_data_ptr(), info.dtype, info.rank, shapes[i].data(), nullptr});
  }
  check(kiln_session_run(session.get(), views.data(), views.size(), output_views.data(),
                         num_outputs));
  if (modes != nullptr) {
    modes->after_run(session.get(), outputs);
  }
  return outputs;
}

}  // namespace
}  // namespace kiln::torch_op

// Forgets what was loaded from the engine at an address; a later call loads it again. Not an
// operator, because it is called when modules are destroyed, which may happen while somebody is
// tracing.
extern "C" __attribute__((visibility("default"))) void kiln_torch_release_engine(const void* data) {
  kiln::torch_op::EngineCache::instance().release(data);
  kiln::torch_op::set_modes(data, 0);
}

STABLE_TORCH_LIBRARY(kiln, m) {
  m.def("execute_engine(Tensor[] inputs, Tensor engine, str spec) -> Tensor[]");
}
STABLE_TORCH_LIBRARY_IMPL(kiln, CPU, m) {
  m.impl("execute_engine", TORCH_BOX(&kiln::torch_op::execute_engine));
}
// Reached when any tensor is on a GPU: to say clearly what is wrong.
STABLE_TORCH_LIBRARY_IMPL(kiln, CUDA, m) {
  m.impl("execute_engine", TORCH_BOX(&kiln::torch_op::execute_engine));
}
