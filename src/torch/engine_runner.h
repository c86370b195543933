// Runs an engine on PyTorch's tensors, for any number of threads at once.
#pragma once

#include <memory>
#include <mutex>
#include <span>
#include <vector>

#include "kiln/kiln.h"
#include "torch/layouts.h"
#include "torch/tensors.h"

namespace kiln::torch_op {

struct EngineDeleter {
  void operator()(kiln_engine* engine) const { kiln_engine_destroy(engine); }
};
struct SessionDeleter {
  void operator()(kiln_session* session) const { kiln_session_destroy(session); }
};
using EnginePtr = std::unique_ptr<kiln_engine, EngineDeleter>;
using SessionPtr = std::unique_ptr<kiln_session, SessionDeleter>;

// Throws std::runtime_error with the runtime's text.
void check(kiln_status status);

// What one call does besides running.
class RunHooks {
 public:
  virtual ~RunHooks() = default;
  virtual void before_run(kiln_session* session) = 0;
  // An older tensor for output `index` to be written to; null for a new one. `output` has the
  // strides that it needs.
  virtual OwnedTensor reuse(size_t index, const kiln_tensor& output,
                            std::span<const kiln_tensor> inputs) = 0;
  virtual void after_run(kiln_session* session, std::span<const OwnedTensor> outputs) = 0;
};

class EngineRunner {
 public:
  explicit EngineRunner(EnginePtr engine);

  size_t num_outputs() const { return outputs_.size(); }
  // Takes as many threads as PyTorch's operators do. The inputs are borrowed; the outputs are new,
  // or what `hooks`, which may be null, has for them. `layouts` has one for each output, or none if
  // all are row-major. Throws std::runtime_error for inputs that the engine was not compiled for.
  std::vector<OwnedTensor> run(std::span<const AtenTensorHandle> inputs,
                               std::span<const Layout> layouts, RunHooks* hooks = nullptr);

 private:
  struct OutputInfo {
    kiln_dtype dtype = KILN_F32;
    int32_t rank = 0;
  };
  class Lease;

  OwnedTensor make_output(size_t index, const Shape& stored, std::span<const Layout> layouts,
                          std::span<const kiln_tensor> inputs, RunHooks* hooks) const;
  SessionPtr take_session(int num_threads);
  void give_back(SessionPtr session, int num_threads);

  EnginePtr engine_;
  std::vector<OutputInfo> outputs_;
  std::mutex mutex_;
  std::vector<SessionPtr> idle_;  // all of idle_threads_ threads
  int idle_threads_ = 0;
};

}  // namespace kiln::torch_op
