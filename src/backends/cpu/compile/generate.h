// One kernel, generated for one CPU level.
#pragma once

#include "backends/cpu/compile/common.h"
#include "backends/cpu/compile/image/machine.h"

namespace kiln::cpu {

// `machine` is that of the target.
GeneratedKernel generate_kernel(const plan::Program& program, const plan::Kernel& kernel,
                                const Target& target, const Machine& machine);

}  // namespace kiln::cpu
