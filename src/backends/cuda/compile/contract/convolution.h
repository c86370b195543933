// Channels-last convolutions as kernels of their own.
#pragma once

#include <string>

#include "backends/cuda/compile/kernel_context.h"

namespace kiln::cuda {

// The text of the kernel. CompileError for formats that there is no kernel for.
std::string convolution_text(KernelContext& context, const plan::Convolution& convolution);

}  // namespace kiln::cuda
