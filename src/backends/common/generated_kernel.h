// What a backend makes of one kernel.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "backends/common/derived_constants.h"
#include "backends/common/kernel_interface.h"
#include "engine/spec.h"

namespace kiln::backend {

struct GeneratedKernel {
  explicit GeneratedKernel(const plan::Program& program) : constants(program) {}

  KernelInterface interface;
  DerivedConstants constants;
  engine::StepKind kind = engine::StepKind::Tasks;
  // Position-independent: it is placed at a multiple of 64 bytes, beside that of other kernels. A
  // Call needs none.
  std::vector<std::byte> code;
  uint64_t entry = 0;    // where the kernel begins in `code`, in bytes
  std::string function;  // Launch: its name in the code; Call: the library's and its name
  // What `code` was compiled from, for dumps, and the ending of a file with that; "": nothing people read.
  std::string text, text_ending;
};

}  // namespace kiln::backend
