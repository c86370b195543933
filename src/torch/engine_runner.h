// Runs an engine on PyTorch's tensors, for any number of threads at once.
#pragma once

#include <functional>
#include <memory>
#include <mutex>
#include <optional>
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

// Throws std::runtime_error with the runtime's text; std::out_of_range for KILN_INDEX_ERROR.
void check(kiln_status status);

// An engine with its program for a kind of device; `load` loads it with the options given. One that has
// none is loaded as this machine runs it, so that the error of a run says where that is, or why it is
// nowhere. Throws std::runtime_error for what is not an engine for this machine.
EnginePtr load_for(
    kiln_device_type type,
    const std::function<kiln_status(const kiln_load_options* options, kiln_engine** engine)>& load);

// What one call does besides running.
class RunHooks {
 public:
  virtual ~RunHooks() = default;
  // Bytes of a GPU's memory for weights (kiln_session_options); none: no limit.
  virtual std::optional<uint64_t> weight_budget() const = 0;
  virtual void before_run(kiln_session* session) = 0;
  // A tensor that nobody else has for output `index` of a run on a stream; null for a new one. `output` has the
  // strides that it needs. Runs that are captured into a graph do not ask: their memory is the graph's.
  virtual OwnedTensor take_output(size_t index, const kiln_tensor& output, const void* stream) = 0;
  // Without outputs after a run that was captured.
  virtual void after_run(kiln_session* session, std::span<const OwnedTensor> outputs,
                         const void* stream) = 0;
};

class EngineRunner {
 public:
  explicit EngineRunner(EnginePtr engine);

  size_t num_outputs() const { return outputs_.size(); }
  // The input that an output updates; -1: none.
  int64_t updated_input(size_t output) const { return outputs_[output].updates; }
  // On a CPU, takes as many threads as PyTorch's operators do; on a GPU, queues its work on PyTorch's
  // current stream. The inputs are borrowed; the outputs are new and on `device`, or what `hooks`,
  // which may be null, has for them.
  // Throws std::runtime_error for inputs that the engine was not compiled for.
  //
  // The last `num_states` inputs are changed in place, each by one of as many outputs at the end, which
  // are not among the results. Where such an output cannot lie where its input does (gaps, memory of
  // another state), it is copied there after the run.
  std::vector<OwnedTensor> run(std::span<const AtenTensorHandle> inputs, const Layouts& layouts,
                               kiln_device device = kCpu, RunHooks* hooks = nullptr,
                               size_t num_states = 0);

 private:
  struct OutputInfo {
    kiln_dtype dtype = KILN_F32;
    int32_t rank = 0;
    int64_t updates = -1;
  };
  // What a session is for. Runs of one session on different streams would wait for each other.
  struct Place {
    int32_t num_threads = 0;  // of a CPU
    kiln_device device = kCpu;
    void* stream = nullptr;  // of a GPU
    bool is_captured = false;
    std::optional<uint64_t> weight_budget;  // of a GPU

    bool operator==(const Place& other) const {
      return num_threads == other.num_threads && device.type == other.device.type &&
             device.index == other.device.index && stream == other.stream &&
             weight_budget == other.weight_budget;
    }
  };
  struct IdleSession {
    Place place;
    SessionPtr session;
  };
  struct Call;
  class Lease;

  static Place place_of(kiln_device device, const RunHooks* hooks);
  OwnedTensor make_output(size_t index, const Shape& stored, const Call& call) const;
  void* place_output(size_t index, const Shape& shape, Call& call) const;
  void run_into(kiln_session* session, const Place& place, Call& call) const;
  void run_and_allocate(kiln_session* session, const Place& place, Call& call) const;
  void check_states(size_t num_inputs, size_t num_states) const;
  SessionPtr take_session(const Place& place);
  void give_back(SessionPtr session, const Place& place);

  EnginePtr engine_;
  std::vector<OutputInfo> outputs_;
  std::mutex mutex_;
  std::vector<IdleSession> idle_;  // the most recently used last
  // What runs that callers captured into graphs of theirs work with: graphs may be replayed as long
  // as the engine is there, beside any other run.
  std::vector<SessionPtr> captured_;
};

}  // namespace kiln::torch_op
