// One kernel, generated for one CPU level.
#pragma once

#include "backends/common/code_store.h"
#include "backends/cpu/compile/common.h"
#include "backends/cpu/compile/image/machine.h"

namespace kiln::cpu {

// `machine` is that of the target. `store` has objects that were compiled before; may be null.
GeneratedKernel generate_kernel(const plan::Program& program, const plan::Kernel& kernel,
                                const Target& target, const Machine& machine,
                                backend::CodeStore* store);

}  // namespace kiln::cpu
