#include "torch/cuda.h"

#include <dlfcn.h>
#include <torch/csrc/inductor/aoti_torch/c/shim.h>

#include <stdexcept>

#include "torch/tensors.h"

namespace kiln::torch_op {
namespace {

// Of libtorch_cuda; null what it lacks. It is never unloaded.
struct TorchCuda {
  AOTITorchError (*current_stream)(int32_t device, void** stream) = nullptr;
  AOTITorchError (*make_guard)(void* stream, int32_t device, void** guard) = nullptr;
  AOTITorchError (*delete_guard)(void* guard) = nullptr;
  AOTITorchError (*allocate)(uint64_t bytes, void** data) = nullptr;
  AOTITorchError (*release)(void* data) = nullptr;
  int (*is_capturing)(void* stream, int* status) = nullptr;  // of the driver

  TorchCuda() {
    if (void* driver = dlopen("libcuda.so.1", RTLD_NOLOAD | RTLD_LAZY); driver != nullptr)
      find(driver, "cuStreamIsCapturing", is_capturing);
    void* library = dlopen("libtorch_cuda.so", RTLD_NOLOAD | RTLD_LAZY);
    if (library == nullptr) return;
    find(library, "aoti_torch_get_current_cuda_stream", current_stream);
    find(library, "aoti_torch_create_cuda_stream_guard", make_guard);
    find(library, "aoti_torch_delete_cuda_stream_guard", delete_guard);
    find(library, "aoti_torch_cuda_caching_allocator_raw_alloc", allocate);
    find(library, "aoti_torch_cuda_caching_allocator_raw_delete", release);
  }

  template <typename Function>
  static void find(void* library, const char* name, Function& function) {
    function = reinterpret_cast<Function>(dlsym(library, name));
  }
};

const TorchCuda& torch_cuda() {
  static const TorchCuda kFunctions;
  return kFunctions;
}

void require(bool is_there) {
  if (!is_there)
    throw std::runtime_error("[execute_engine] a GPU is wanted, but this PyTorch has no CUDA");
}

// PyTorch allocates on the current device and stream of the thread: those of the run.
void* allocate(void*, size_t bytes, size_t, kiln_device, void*) {
  void* data = nullptr;
  return torch_cuda().allocate(bytes, &data) == AOTI_TORCH_SUCCESS ? data : nullptr;
}

void release(void*, void* data, size_t, kiln_device, void*) { torch_cuda().release(data); }

}  // namespace

void* current_cuda_stream(int32_t device) {
  void* stream = nullptr;
  require(torch_cuda().current_stream != nullptr);
  check_torch(torch_cuda().current_stream(device, &stream), "tell its current stream");
  return stream;
}

bool is_capturing(void* stream) {
  int status = 0;
  return torch_cuda().is_capturing != nullptr && torch_cuda().is_capturing(stream, &status) == 0 &&
         status != 0;
}

int32_t current_cuda_device() {
  int32_t device = 0;
  require(torch_cuda().current_stream != nullptr);
  check_torch(aoti_torch_get_current_device_index(&device), "tell its current GPU");
  return device;
}

CudaStreamGuard::CudaStreamGuard(void* stream, int32_t device) {
  require(torch_cuda().make_guard != nullptr);
  check_torch(torch_cuda().make_guard(stream, device, &guard_), "use a stream");
}

CudaStreamGuard::~CudaStreamGuard() { torch_cuda().delete_guard(guard_); }

const kiln_allocator* cuda_allocator() {
  static const kiln_allocator kAllocator{sizeof(kiln_allocator), nullptr, allocate, release};
  const bool has_it = torch_cuda().allocate != nullptr && torch_cuda().release != nullptr;
  return has_it ? &kAllocator : nullptr;
}

}  // namespace kiln::torch_op
