// A CPU program bound to sizes: pointers, parameters, threads and scratch of every step.
#pragma once

#include "backends/cpu/device/made_constants.h"
#include "backends/executable.h"

namespace kiln::cpu {

// What a bound program refers to; all of it outlives it.
struct LoadedProgram {
  const engine::ProgramSpec& spec;
  std::span<const std::byte> weights;
  const std::byte* code = nullptr;  // executable
  const MadeConstants& made;
};

// Unsupported: a kernel of the user's own that this process does not have. InvalidEngine: one with tensors that are
// not its buffers.
Result<std::unique_ptr<BoundProgram>> bind_program(const LoadedProgram& program,
                                                   const BindRequest& request);

}  // namespace kiln::cpu
