// What the device half of a target offers to the runtime: programs that are loaded, bound to sizes,
// and run. Everything that knows a machine is behind this: memory that code can run in, threads,
// streams, features. The runtime has a table of devices (runtime/devices.h).
//
// A device whose memory has streams runs asynchronously: run() may return when the work is queued, and
// what fails after that is told later. One whose memory has none is done when run() returns.
//
// A run costs one call of a virtual function. Nothing here throws.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "engine/spec.h"
#include "support/device_memory.h"
#include "support/status.h"

namespace kiln {

// The time of one step of a run.
struct StepTime {
  int64_t tasks = 0;
  int32_t threads = 0;
  int64_t nanoseconds = 0;
};

// A flag that other threads set to end a run; null: nobody does.
using CancelFlag = const volatile int32_t*;

inline bool is_cancelled(CancelFlag flag) {
  return flag != nullptr && __atomic_load_n(flag, __ATOMIC_RELAXED) != 0;
}

// What one run works on. The memory is the device's own, but for the arrays of pointers.
struct RunRequest {
  std::span<void* const> inputs, outputs;  // by index; dense, null only where there are no elements
  std::byte* workspace = nullptr;          // BoundProgram::workspace_bytes(), kTensorAlignment
  std::span<std::byte* const> earlier;     // the workspaces of the parts before this one
  // The device's own kind, null for its default or where it has none. All runs of a bound program
  // that are pending at one time are on one stream: who changes it synchronizes before.
  void* stream = nullptr;
  // Looked at before every step, or before the work is queued; not after the last.
  CancelFlag cancel = nullptr;
  // Gets an element for every step that ran, if not null: the run is then done when it returns.
  std::vector<StepTime>* profile = nullptr;
};

// How a run ended. A device that runs asynchronously does not know yet: its outcome may be that of an
// earlier run of the same bound program. Every failure is told once, by run() or synchronize().
struct RunOutcome {
  Status status;               // what went wrong with the device; Cancelled
  size_t step = 0;             // that found its data wrong:
  uint64_t failed_checks = 0;  // the bits of its checks that failed, the run ended there; 0: none

  bool ok() const { return status.ok() && failed_checks == 0; }
};

inline RunOutcome cancelled_outcome() {
  return {
      Status(StatusCode::Cancelled, "the run was cancelled: what its outputs hold is unspecified")};
}

// A program, or a part of one, for one set of sizes. It serves one run at a time, which allocates nothing; after one that
// failed or was cancelled it serves the next. It may be destroyed while its work is pending: what
// that needs of it stays as long, memory of the request apart.
class BoundProgram {
 public:
  virtual ~BoundProgram() = default;
  virtual RunOutcome run(const RunRequest& request) = 0;
  // Waits for the runs so far, and tells a failure of theirs that was not told.
  virtual RunOutcome synchronize() { return {}; }

  // Memory that a run needs: the temporaries, and what the device adds behind them.
  uint64_t workspace_bytes() const { return workspace_bytes_; }

 protected:
  uint64_t workspace_bytes_ = 0;
};

// Sizes were checked against the interface: those of buffers, steps and scratch are at most
// runtime::kLargestSize.
struct BindRequest {
  std::span<const int64_t> sizes;     // by slot
  std::span<const uint64_t> offsets;  // of temporaries in the workspace, by buffer
  uint64_t temporary_bytes = 0;       // the part of the workspace that they take
  // The part of the program that is bound: its steps, and by buffer the part whose workspace has it. The
  // whole program is part 0.
  std::span<const int32_t> parts = {};
  int32_t part = 0;
  size_t first_step = 0, end_step = SIZE_MAX;
  int threads = 1;  // that a run may use, the calling one included
  int device = 0;   // an index below DeviceMemory::count()
  // Bytes of the device's memory that weights may take, as far as they can be streamed.
  uint64_t weight_budget = UINT64_MAX;
};

// A loaded program: immutable, shared by any number of threads.
class Executable {
 public:
  virtual ~Executable() = default;
  virtual Result<std::unique_ptr<BoundProgram>> bind(const BindRequest& request) const = 0;
  // Bytes of weights that a run can do with outside of the device's memory, copying them there when it
  // needs them.
  virtual uint64_t streamable_bytes() const { return 0; }
  // Unsupported: it calls what this process does not have, but may have later.
  virtual Status find_functions() const { return Status(); }
};

// All that it points to outlives the executable.
struct LoadRequest {
  const engine::ProgramSpec* program = nullptr;  // valid, and of the device's target
  std::span<const std::byte> weights;            // kConstantAlignment
  bool is_mapped = false;  // the code lies in pages of a private mapping of a file
};

// The device half of a target.
struct Device {
  const char* target;
  // Where inputs, outputs and the workspace lie.
  const DeviceMemory* memory;
  // Why this machine cannot run a program, of which the head is all that is looked at: "this CPU
  // lacks avx512". Empty: it can.
  std::string (*obstacle)(const engine::ProgramSpec& program);
  // Unsupported: steps that are not for the target.
  Result<std::unique_ptr<Executable>> (*load)(const LoadRequest& request);
  // Whether this machine runs a program more slowly than those that come after it. Null: none.
  bool (*runs_slowly)(const engine::ProgramSpec& program) = nullptr;
};

}  // namespace kiln
