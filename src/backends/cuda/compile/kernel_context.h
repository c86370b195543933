// What the generators of the four kernel forms share.
#pragma once

#include "backends/common/generated_kernel.h"
#include "plan/form/program.h"

namespace kiln::cuda {

// A generation of GPUs to make code for.
struct Target {
  const char* name;  // the variant: "sm_90"
  const char*
      real_arch;  // what NVRTC compiles for: "sm_90a" has instructions of that generation alone
  int sm = 0;     // 80, 86, 89, 90
};

// One kernel in the making. A generator fills in result.interface, result.constants and result.kind,
// and returns the text of the kernel, CUDA C++ without includes; empty for a Call.
struct KernelContext {
  const plan::Program& program;
  const Target& target;
  backend::GeneratedKernel& result;
};

}  // namespace kiln::cuda
