// What a backend makes of one kernel.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "backends/common/derived_constants.h"
#include "backends/common/kernel_interface.h"

namespace kiln::backend {

struct GeneratedKernel {
  explicit GeneratedKernel(const plan::Program& program) : constants(program) {}

  KernelInterface interface;
  DerivedConstants constants;
  // Position-independent: it is placed at a multiple of 64 bytes, beside that of other kernels.
  std::vector<std::byte> code;
  uint64_t entry = 0;  // where the kernel begins in `code`, in bytes
};

}  // namespace kiln::backend
