// The PyTorch operators: kiln::execute_engine(Tensor[] inputs, Tensor engine, str spec) -> Tensor[], and
// kiln::execute_engine_in_place(Tensor[] inputs, Tensor(a!)[] state, Tensor engine, str spec) -> Tensor[] for an
// engine that updates its last inputs, the state, by its last outputs, which are not among the results.
//
// `engine` holds the bytes of an engine as a uint8 tensor, so a program that uses it needs no
// custom class and can be saved by whatever saves tensors. `spec` gives the outputs' dtypes and
// shapes for tracing (python/torch_tensorrt/_operator.py evaluates it); the engine knows them, and
// a run reads from it only how outputs lie in memory.

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/tensor.h>

#include <cstdio>
#include <cstdlib>
#include <memory>
#include <mutex>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include "torch/cuda.h"
#include "torch/engine_modes.h"
#include "torch/layouts.h"
#include "torch/loaded_engines.h"
#include "torch/tensors.h"

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
}

// "cuda:1" after the "@" of a spec; the CPU if there is none.
kiln_device device_of_spec(std::string_view spec) {
  const size_t at = spec.find("@cuda");
  if (at == std::string_view::npos) return kCpu;
  const size_t colon = spec.find(':', at);
  return {KILN_CUDA, colon == std::string_view::npos
                         ? current_cuda_device()
                         : std::atoi(std::string(spec.substr(colon + 1)).c_str())};
}

// Where a call runs: on the GPU that has one of its inputs. If there are none, where the engine lies,
// or what the spec says.
kiln_device device_of_call(std::span<const AtenTensorHandle> inputs, const Tensor& engine,
                           std::string_view spec) {
  for (size_t i = 0; i < inputs.size(); ++i)
    if (!is_on_cpu(inputs[i])) return device_of(inputs[i], {"input", i});
  if (!inputs.empty()) return kCpu;
  return is_on_cpu(engine.get()) ? device_of_spec(spec) : device_of(engine.get(), {"the engine"});
}

// The inputs of a call on a GPU, those that lie elsewhere as copies: scripts leave small ones, such as the time step of a
// diffusion model, on the CPU.
class InputsOn {
 public:
  InputsOn(kiln_device device, std::span<const AtenTensorHandle> inputs, size_t num_states)
      : inputs_(inputs) {
    if (device.type != KILN_CUDA) return;
    for (size_t i = 0; i + num_states < inputs.size(); ++i) {
      const kiln_device own = device_of(inputs[i], {"input", i});
      if (own.type == device.type && own.index == device.index) continue;
      warn_once(i);
      if (handles_.empty()) handles_.assign(inputs.begin(), inputs.end());
      copies_.push_back(copy_to(device, inputs[i], {"input", i}));
      handles_[i] = copies_.back().get();
      inputs_ = handles_;
    }
  }
  std::span<const AtenTensorHandle> get() const { return inputs_; }

 private:
  static void warn_once(size_t input) {
    static std::once_flag once;
    std::call_once(once, [&] {
      std::fprintf(stderr,
                   "kiln: warning: input %zu of an engine is not on the GPU of the others, and is "
                   "copied there in each call (this is said once)\n",
                   input);
    });
  }

  std::span<const AtenTensorHandle> inputs_;
  std::vector<AtenTensorHandle> handles_;  // empty unless there are copies
  std::vector<OwnedTensor> copies_;
};

EngineRunner& load(LoadedEngine& engine, kiln_device device) {
  try {
    return engine.runner(static_cast<kiln_device_type>(device.type));
  } catch (...) {
    LoadedEngines::instance().forget(engine);
    throw;
  }
}

// `inputs` end in `num_states` tensors that the engine changes.
std::vector<Tensor> run_engine(std::span<const AtenTensorHandle> inputs, const Tensor& engine,
                               const std::string& spec, size_t num_states) {
  check_engine_tensor(engine);
  const std::shared_ptr<LoadedEngine> loaded = LoadedEngines::instance().find(engine);
  const kiln_device device = device_of_call(inputs, engine, spec);
  EngineRunner& runner = load(*loaded, device);
  const std::unique_ptr<RunHooks> hooks = modal_run(engine.const_data_ptr());
  const Layouts layouts = parse_layouts(spec);
  std::vector<Tensor> outputs;
  const InputsOn placed(device, inputs, num_states);
  for (OwnedTensor& output : runner.run(placed.get(), layouts, device, hooks.get(), num_states)) {
    outputs.emplace_back(output.release());
  }
  return outputs;
}

std::vector<Tensor> execute_engine(std::vector<Tensor> inputs, Tensor engine, std::string spec) {
  std::vector<AtenTensorHandle> handles;
  handles.reserve(inputs.size());
  for (const Tensor& input : inputs) handles.push_back(input.get());
  return run_engine(handles, engine, spec, 0);
}

std::vector<Tensor> execute_engine_in_place(std::vector<Tensor> inputs, std::vector<Tensor> state,
                                            Tensor engine, std::string spec) {
  std::vector<AtenTensorHandle> handles;
  handles.reserve(inputs.size() + state.size());
  for (const Tensor& input : inputs) handles.push_back(input.get());
  for (const Tensor& each : state) handles.push_back(each.get());
  return run_engine(handles, engine, spec, state.size());
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
  if (!kiln::torch_op::LoadedEngines::instance().release(data)) return;
  kiln::torch_op::set_modes(data, 0);
  kiln::torch_op::set_weight_budget(data, std::nullopt);
}

STABLE_TORCH_LIBRARY(kiln, m) {
  m.def("execute_engine(Tensor[] inputs, Tensor engine, str spec) -> Tensor[]");
  m.def(
      "execute_engine_in_place(Tensor[] inputs, Tensor(a!)[] state, Tensor engine, str spec) -> "
      "Tensor[]");
}
STABLE_TORCH_LIBRARY_IMPL(kiln, CPU, m) {
  m.impl("execute_engine", TORCH_BOX(&kiln::torch_op::execute_engine));
  m.impl("execute_engine_in_place", TORCH_BOX(&kiln::torch_op::execute_engine_in_place));
}
// Reached when any tensor is on a GPU.
STABLE_TORCH_LIBRARY_IMPL(kiln, CUDA, m) {
  m.impl("execute_engine", TORCH_BOX(&kiln::torch_op::execute_engine));
  m.impl("execute_engine_in_place", TORCH_BOX(&kiln::torch_op::execute_engine_in_place));
}
