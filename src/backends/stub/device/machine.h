// The stub machine: runs one task of a kernel.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "backends/stub/code.h"

namespace kiln::stub {

struct Memory {
  std::byte* data = nullptr;
  uint64_t bytes = 0;
  bool writable = false;
};

union Register {
  int64_t integer;
  double number;
};

// A step bound to a run. The code is one that read_code has passed.
struct Call {
  const Instruction* code = nullptr;
  std::span<const Memory> buffers;
  std::span<const int64_t> params;
};

struct TaskOutcome {
  uint64_t failed_checks = 0;
  bool out_of_bounds = false;  // an access that left its buffer was not made, and ended the task
};

// `registers` is memory that tasks may share one after another.
TaskOutcome run_task(const Call& call, int64_t task, std::vector<Register>& registers);

}  // namespace kiln::stub
