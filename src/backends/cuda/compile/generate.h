// One kernel for one generation of GPUs.
#pragma once

#include <string>
#include <vector>

#include "backends/cuda/compile/kernel_context.h"

namespace kiln::cuda {

// The generations there is code for, the best first, and the PTX for all others.
const std::vector<Target>& all_targets();

struct KernelText {
  backend::GeneratedKernel kernel;  // without its code
  std::string text;                 // CUDA C++; empty for a library call
  size_t ways = 1;                  // there are of doing it
};

// The same program and kernel give the same text. CompileError for a kernel that cannot be done. `way`:
// KernelContext::way.
KernelText generate_text(const plan::Program& program, const plan::Kernel& kernel,
                         const Target& target, size_t way = 0);

// --- The forms: a file each in nest and contract. They fill in context.result.

std::string loop_nest_text(KernelContext& context, const plan::LoopNest& nest);
std::string sort_text(KernelContext& context, const plan::Sort& sort);
std::string scatter_text(KernelContext& context, const plan::Scatter& scatter);

}  // namespace kiln::cuda
