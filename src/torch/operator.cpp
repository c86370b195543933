// The PyTorch operator: kiln::execute_engine(Tensor[] inputs, Tensor engine, str spec) -> Tensor[].
//
// `engine` holds the bytes of an engine as a uint8 tensor, so a program that uses it needs no
// custom class and can be saved by whatever saves tensors. `spec` gives the outputs' dtypes and
// shapes for tracing (python/torch_tensorrt/_operator.py evaluates it); the engine knows them, and
// a run reads from it only how outputs lie in memory.

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/tensor.h>

#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "torch/engine_modes.h"
#include "torch/layouts.h"
#include "torch/loaded_engines.h"

namespace kiln::torch_op {
namespace {

using ::torch::stable::Tensor;

void check_engine_tensor(const Tensor& engine) {
  int32_t dtype = 0;
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_dtype(engine.get(), &dtype));
  if (dtype != aoti_torch_dtype_uint8() || engine.dim() != 1 || !engine.is_contiguous()) {
    throw std::runtime_error(
        "[execute_engine] the engine is not a contiguous one-dimensional uint8 tensor");
  }
  if (!is_on_cpu(engine.get())) {
    throw std::runtime_error(
        "[execute_engine] the engine's bytes are not in CPU memory: call .cpu() on the module");
  }
}

EngineRunner& load(LoadedEngine& engine) {
  try {
    return engine.runner();
  } catch (...) {
    LoadedEngines::instance().forget(engine);
    throw;
  }
}

std::vector<Tensor> execute_engine(std::vector<Tensor> inputs, Tensor engine, std::string spec) {
  check_engine_tensor(engine);
  std::vector<AtenTensorHandle> handles;
  handles.reserve(inputs.size());
  for (const Tensor& input : inputs) {
    handles.push_back(input.get());
  }
  const std::shared_ptr<LoadedEngine> loaded = LoadedEngines::instance().find(engine);
  EngineRunner& runner = load(*loaded);
  const std::unique_ptr<RunHooks> hooks = modal_run(engine.const_data_ptr());
  const std::vector<Layout> layouts = parse_layouts(spec);
  std::vector<Tensor> outputs;
  for (OwnedTensor& output : runner.run(handles, layouts, hooks.get())) {
    outputs.emplace_back(output.release());
  }
  return outputs;
}

}  // namespace
}  // namespace kiln::torch_op

#define KILN_TORCH_EXPORT extern "C" __attribute__((visibility("default")))

// Not operators, because they are called when modules are made and destroyed, which may happen
// while somebody is tracing.

// Keeps what is loaded from the engine at an address until it is released.
KILN_TORCH_EXPORT void kiln_torch_hold_engine(const void* data) {
  kiln::torch_op::LoadedEngines::instance().hold(data);
}

// When everybody who held it has released it, forgets what was loaded from the engine at an
// address; a later call loads it again.
KILN_TORCH_EXPORT void kiln_torch_release_engine(const void* data) {
  if (kiln::torch_op::LoadedEngines::instance().release(data)) kiln::torch_op::set_modes(data, 0);
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
