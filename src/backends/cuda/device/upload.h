// Host memory to a GPU's, at the speed of the bus.
#pragma once

#include <cstddef>
#include <span>
#include <vector>

#include "backends/cuda/device/gpu.h"
#include "support/status.h"

namespace kiln::cuda {

struct Upload {
  std::span<const std::byte> from;
  api::CUdeviceptr to = 0;
};

// Returns when all have arrived. The context of the GPU is the calling thread's.
//
// The driver copies pageable memory through one small buffer of its own at a third of what the bus
// carries. Here pieces go through two pinned buffers in turn: while one is on its way, the next is
// filled, by several threads if there is much to copy.
Status upload(std::span<const Upload> uploads);

}  // namespace kiln::cuda
