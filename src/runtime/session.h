// One caller's use of an engine: its workspace, and what is known about the shapes seen so far.
#pragma once

#include <atomic>
#include <memory>
#include <span>
#include <vector>

#include "runtime/binding.h"
#include "runtime/engine.h"
#include "runtime/tensor.h"
#include "support/aligned_buffer.h"
#include "support/status.h"

namespace kiln::runtime {

struct SessionOptions {
  int num_threads = 0;  // the calling one included; 0: one per CPU that this process may use
};

// One thread at a time: a second one gets an error. A run allocates nothing once its shapes have
// been seen.
class Session {
 public:
  static Result<std::unique_ptr<Session>> create(std::shared_ptr<const Engine> engine,
                                                 const SessionOptions& options = {});

  const Engine& engine() const { return *engine_; }

  // Shapes of the outputs for these inputs, whose data is not read. Valid until the next call.
  Result<std::span<const BoundTensor>> output_shapes(std::span<const TensorView> inputs);
  // Inputs may be strided. Outputs are contiguous and overlap nothing. `stream` is one of the
  // target's, null: its default.
  Status run(std::span<const TensorView> inputs, std::span<const TensorView> outputs,
             void* stream = nullptr);

  void enable_profiling(bool enable) { profiling_ = enable; }
  // By step; empty before the first run with profiling.
  const std::vector<StepTime>& profile() const { return profile_; }

 private:
  Session(std::shared_ptr<const Engine> engine, int threads)
      : engine_(std::move(engine)), threads_(threads) {}

  Status bind(std::span<const TensorView> inputs);
  bool is_current(std::span<const TensorView> inputs) const;
  Status activate(std::vector<int64_t> symbols);
  Status set_inputs(std::span<const TensorView> inputs);
  Status set_outputs(std::span<const TensorView> outputs);
  Result<void*> stage(size_t index, const TensorView& input);
  Status provide_memory();
  Status execute(std::span<const TensorView> inputs, void* stream);

  const std::shared_ptr<const Engine> engine_;
  const int threads_;
  std::vector<std::unique_ptr<Binding>> bindings_;  // the most recently used first: the current one
  AlignedBuffer memory_;
  std::vector<void*> input_data_, output_data_;  // of the current run
  std::vector<AlignedBuffer> staged_;            // contiguous copies of strided inputs, by input
  std::vector<StepTime> profile_;
  bool profiling_ = false;
  std::atomic_flag busy_;
};

}  // namespace kiln::runtime
