// Matrix products as kernels of their own.
#pragma once

#include <string>

#include "backends/cuda/compile/kernel_context.h"

namespace kiln::cuda {

// The text of the kernel. CompileError for formats that there is no kernel for.
std::string matmul_text(KernelContext& context, const plan::MatMul& matmul);

}  // namespace kiln::cuda
