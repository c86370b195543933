// Attention as kernels of their own.
#pragma once

#include <string>

#include "backends/cuda/compile/kernel_context.h"

namespace kiln::cuda {

// The text of the kernel. CompileError for sizes and formats that there is no kernel for.
std::string attention_text(KernelContext& context, const plan::Attention& attention);

}  // namespace kiln::cuda
