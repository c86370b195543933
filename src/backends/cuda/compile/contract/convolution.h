// Channels-last convolutions as kernels of their own.
#pragma once

#include <cstdint>
#include <string>

#include "backends/cuda/compile/kernel_context.h"

namespace kiln::cuda {

// Convolutions that tile_wgmma.cuh takes: what the copy engine knows of images (im2col), and the sizes that are worth it.
struct CopiedImages {
  static constexpr int64_t kMostStride = 8;
  static constexpr int64_t kMostReach = 255;  // from the first tap to the last
  static constexpr int64_t kCorner = 128;     // corners are in [-kCorner, kCorner)
  static constexpr int64_t kFewestFilters = 16, kFewestPixels = 33;
};

// The text of the kernel. CompileError for formats that there is no kernel for.
std::string convolution_text(KernelContext& context, const plan::Convolution& convolution);

}  // namespace kiln::cuda
