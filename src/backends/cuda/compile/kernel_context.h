// What the generators of the kernel forms share.
#pragma once

#include <algorithm>
#include <vector>

#include "backends/common/generated_kernel.h"
#include "plan/form/program.h"

namespace kiln::cuda {

// A generation of GPUs to make code for.
struct Target {
  const char* name;  // the variant: "sm_90", "compute_90"
  const char* arch;  // what NVRTC compiles for: "sm_90a" has instructions of that generation alone
  int sm = 0;        // what kernels are chosen by: 80, 86, 89, 90
  // Code is PTX, for GPUs of all later generations.
  bool is_ptx = false;
};

// One kernel in the making. A generator fills in result.interface, result.constants and result.kind,
// and returns the text of the kernel, CUDA C++ without includes; empty for a Call.
//
// Where there are several ways to do it, such as tiles of several sizes, a generator lists them, the best
// by its model of the machine first, sets `ways` to how many there are and takes the one that is wanted.
struct KernelContext {
  const plan::Program& program;
  const Target& target;
  backend::GeneratedKernel& result;
  size_t way = 0;   // wanted; the last one where there are not so many
  size_t ways = 1;  // set by the generator

  template <typename Way>
  const Way& pick(const std::vector<Way>& ranked) {
    ways = ranked.size();
    return ranked[std::min(way, ways - 1)];
  }
};

}  // namespace kiln::cuda
