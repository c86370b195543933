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
// The driver copies pageable memory through one small buffer of its own at a fifth of what the bus
// carries. Here several threads copy pieces to pinned buffers of theirs, from where they go to the GPU.
// The buffers are small, since pinning takes longer than copying.
Status upload(std::span<const Upload> uploads);

// Copies within the host, with several threads if there is much to copy.
void copy_on_host(std::byte* to, std::span<const std::byte> from);

}  // namespace kiln::cuda
