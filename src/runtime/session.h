// One caller's use of an engine: its workspace, and what is known about the shapes seen so far.
#pragma once

#include <atomic>
#include <memory>
#include <span>
#include <vector>

#include "runtime/binding.h"
#include "runtime/engine.h"
#include "runtime/session_memory.h"
#include "runtime/tensor.h"
#include "support/status.h"

namespace kiln::runtime {

struct SessionOptions {
  int num_threads = 0;       // the calling one included; 0: one per CPU that this process may use
  int device = 0;            // of those that the engine's program can run on: 0 up to their number
  AllocatorHooks allocator;  // of the workspace and of copies of strided inputs; none: the device's
  // Bytes of the device's memory for weights that can be streamed to it (Executable::streamable_bytes).
  uint64_t weight_budget = UINT64_MAX;
};

// An output that the caller is asked for memory for.
struct OutputRequest {
  size_t index = 0;
  const BoundTensor& tensor;
  DeviceId device;
};

// Gives memory for outputs: called in the thread of the run, for each output in turn, once the inputs'
// shapes were found to be right; for an output whose shape depends on data when it is known. Null for an
// output with elements: there is none.
struct OutputHook {
  void* user = nullptr;
  void* (*allocate)(void* user, const OutputRequest& request) = nullptr;
};

struct RunOptions {
  void* stream = nullptr;       // of the device's kind, null for its default or where it has none
  CancelFlag cancel = nullptr;  // ends the run as Cancelled soon after it is no longer 0
  OutputHook outputs;           // in place of outputs, of which there are then none
};

// One thread at a time: a second one gets an error. A run allocates nothing once its shapes have
// been seen.
//
// Where the device has streams, runs are queued. They share the session's memory, so that a run on
// another stream than the one before waits for that; and what fails in the data of a queued run is the
// status of a later run or of synchronize(), which then did nothing else.
class Session {
 public:
  ~Session();
  Session(const Session&) = delete;
  Session& operator=(const Session&) = delete;

  static Result<std::unique_ptr<Session>> create(std::shared_ptr<const Engine> engine,
                                                 const SessionOptions& options = {});

  const Engine& engine() const { return *engine_; }
  // Where inputs and outputs lie.
  DeviceId device() const { return memory_.device(); }
  // Those a run may use.
  int threads() const { return threads_; }

  // Shapes of the outputs for these inputs, whose data is not read: of an output whose shape depends on it
  // the largest. Valid until the next call.
  Result<std::span<const BoundTensor>> output_shapes(std::span<const TensorView> inputs);
  // Shapes of the outputs of the last run, which succeeded. Valid until the next call.
  Result<std::span<const BoundTensor>> result_shapes();
  // An output whose shape depends on data is given with the largest shape, and begins with its elements.
  // Inputs may be strided. Outputs are contiguous and overlap nothing, with one exception: an output
  // that updates an input may be that input's memory, all of it and as dense. Elsewhere it begins as a
  // copy, and the input stays as it is. Other inputs in memory that is updated are copied first.
  Status run(std::span<const TensorView> inputs, std::span<const TensorView> outputs,
             const RunOptions& options = {});
  // Waits for the runs so far, and tells what failed in them and was not told. Streams that they
  // were on may go after it.
  Status synchronize();

  void enable_profiling(bool enable) { profiling_ = enable; }
  // By step; empty before the first run with profiling.
  const std::vector<StepTime>& profile() const { return profile_; }
  const std::vector<StepWork>& profiled_work() const { return profiled_work_; }  // of the same run

 private:
  Session(std::shared_ptr<const Engine> engine, const SessionOptions& options);

  Status bind(std::span<const TensorView> inputs);
  bool is_current(std::span<const TensorView> inputs) const;
  Status activate(std::vector<int64_t> symbols);
  Status set_inputs(std::span<const TensorView> inputs);
  Status set_outputs(std::span<const TensorView> outputs);
  Status ask_for_outputs(const OutputHook& hook, const Binding& binding, const Binding* before);
  Status place_updates(std::span<const TensorView> inputs);
  Status keep_others(size_t input, std::span<const TensorView> inputs);
  Status write_back();
  Result<void*> stage(size_t index, const TensorView& input);
  Status execute(std::span<const TensorView> inputs, const RunOptions& options);
  Status execute(const Binding& binding, size_t part, std::span<const TensorView> inputs,
                 CancelFlag cancel);
  Result<Binding*> continue_run(Binding& binding);
  Status find_data_sizes(const Binding& binding);
  int64_t count_in(const Binding& binding, size_t buffer) const;
  Placement placement() const {
    return {.threads = threads_, .device = memory_.device().index, .weight_budget = weight_budget_};
  }
  Status use_stream(void* stream);
  Status wait();
  Status finish(Binding& binding);
  Status status_of(RunOutcome outcome, const Binding& binding,
                   std::span<const TensorView> inputs) const;

  const std::shared_ptr<const Engine> engine_;
  const int threads_;
  const uint64_t weight_budget_;
  const SessionMemory memory_;
  std::vector<std::unique_ptr<Binding>> bindings_;  // the most recently used first: the current one
  std::vector<MemoryBlock> workspaces_;             // by part of the program
  std::vector<std::byte*> workspace_data_;
  std::vector<int64_t> found_;                   // data sizes that were just read
  const Binding* last_ = nullptr;                // of the last part of a run that succeeded
  std::vector<void*> input_data_, output_data_;  // of the current run
  std::vector<MemoryBlock> staged_;              // contiguous copies of strided inputs, by input
  // Outputs that update inputs.
  struct Update {
    size_t output = 0, input = 0;
    bool in_place = false;       // in the current run
    void* write_back = nullptr;  // where the output is to be, if the run has it elsewhere
  };
  Status align(Update& update);
  std::vector<Update> updates_;
  std::vector<Update*> update_of_;         // by input; null: none
  std::vector<MemoryRange> input_ranges_;  // of the current run, where inputs are updated
  void* stream_ = nullptr;                 // of the last run, which may be pending on it
  std::vector<StepTime> profile_;
  std::vector<StepWork> profiled_work_;
  bool profiling_ = false;
  std::atomic_flag busy_;
};

}  // namespace kiln::runtime
