// What the operator needs of PyTorch's CUDA half, which is a library of its own that only some
// installations have. It is found where PyTorch has loaded it.
#pragma once

#include <cstdint>

#include "kiln/kiln.h"

namespace kiln::torch_op {

// The stream that PyTorch's operators on a GPU run on in this thread: a cudaStream_t, null for the
// default one. Throws std::runtime_error if this PyTorch has no CUDA.
void* current_cuda_stream(int32_t device);

// Whether work on a stream is being captured into a CUDA graph of the caller's.
bool is_capturing(void* stream);

// The GPU that is current in this thread. Throws likewise.
int32_t current_cuda_device();

// PyTorch's operators and engines on a GPU run on a stream while this lives, in this thread. Throws
// likewise.
class CudaStreamGuard {
 public:
  CudaStreamGuard(void* stream, int32_t device);
  ~CudaStreamGuard();
  CudaStreamGuard(const CudaStreamGuard&) = delete;
  CudaStreamGuard& operator=(const CudaStreamGuard&) = delete;

 private:
  void* guard_ = nullptr;
};

// PyTorch's caching allocator for the workspace of sessions on GPUs, so that memory is shared with
// everything else in the process; null where this PyTorch does not offer it.
const kiln_allocator* cuda_allocator();

}  // namespace kiln::torch_op
