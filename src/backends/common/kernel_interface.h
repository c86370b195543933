// How a generated kernel is called, and how its work is split.
#pragma once

#include <map>
#include <vector>

#include "plan/form/program.h"

namespace kiln::backend {

// Filled in while code is generated.
struct KernelInterface {
  std::vector<plan::BufferId> buffers;  // argument order
  std::vector<ir::Dim> params;          // over size symbols only
  std::vector<int32_t> checks;          // of the program: the i-th sets bit i of the result
  ir::Dim scratch_bytes = 0;            // per thread of a CPU; otherwise of the whole step
  // The most elements of a buffer that one unit writes: a task, a block of a grid, the one call. The
  // run compares what all of them write with what there is to write.
  std::map<plan::BufferId, ir::Dim> task_writes;

  // Tasks:
  ir::Dim tasks = 1;  // independent ones
  int64_t min_tasks_per_thread = 1;

  // Launch: one to three sizes each, the fastest first; and memory that the threads of a block
  // share, beyond what the kernel declares.
  std::vector<ir::Dim> grid, block;
  ir::Dim shared_bytes = 0;

  // Where an operand, a parameter and a check are; added at the end if they are new.
  int32_t buffer_index(plan::BufferId buffer);
  int32_t param_index(const ir::Dim& dim);
  // The last bit stands for all checks that have none of their own.
  int32_t check_bit(int32_t check);
};

}  // namespace kiln::backend
