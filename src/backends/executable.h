// What the device half of a target offers to the runtime: programs that are loaded, bound to sizes,
// and run. Everything that knows a machine is behind this: memory that code can run in, threads,
// streams, features. The runtime has a table of devices (runtime/devices.h).
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
#include "support/status.h"

namespace kiln {

// The time of one step of a run.
struct StepTime {
  int64_t tasks = 0;
  int32_t threads = 0;
  int64_t nanoseconds = 0;
};

// What one run works on.
struct RunRequest {
  std::span<void* const> inputs, outputs;  // by index; dense, null only where there are no elements
  std::byte* workspace = nullptr;          // BoundProgram::workspace_bytes(), kTensorAlignment
  void* stream = nullptr;                  // the target's own kind; null: its default
  std::vector<StepTime>* profile = nullptr;  // gets an element for every step that ran, if not null
};

struct RunOutcome {
  Status status;               // what went wrong with the device
  size_t step = 0;             // that found its data wrong:
  uint64_t failed_checks = 0;  // the bits of its checks that failed, the run ended there; 0: none
};

// A program for one set of sizes. It serves one run at a time, which allocates nothing.
class BoundProgram {
 public:
  virtual ~BoundProgram() = default;
  virtual RunOutcome run(const RunRequest& request) = 0;

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
  int threads = 1;                    // that a run may use, the calling one included
};

// A loaded program: immutable, shared by any number of threads.
class Executable {
 public:
  virtual ~Executable() = default;
  virtual Result<std::unique_ptr<BoundProgram>> bind(const BindRequest& request) const = 0;
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
  // Why this machine cannot run a program, of which the head is all that is looked at: "this CPU
  // lacks avx512". Empty: it can.
  std::string (*obstacle)(const engine::ProgramSpec& program);
  // Unsupported: steps that are not for the target.
  Result<std::unique_ptr<Executable>> (*load)(const LoadRequest& request);
};

}  // namespace kiln
