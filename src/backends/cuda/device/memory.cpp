#include "backends/cuda/device/memory.h"

#include <algorithm>
#include <deque>
#include <mutex>

#include "backends/cuda/device/gpu.h"
#include "backends/cuda/device/strided_copy_ptx.h"
#include "support/limits.h"

namespace kiln::cuda {
namespace {

api::CUstream stream_of(void* stream) { return static_cast<api::CUstream>(stream); }

Result<std::byte*> allocate(uint64_t bytes, int device, void* stream) {
  const Result<const Gpu*> gpu = Gpu::get(device);
  if (!gpu.ok()) return gpu.status();
  const CurrentContext current(**gpu);
  api::CUdeviceptr pointer = 0;
  KILN_RETURN_IF_CUDA_ERROR(
      driver().cuMemAllocAsync(&pointer, bytes, stream_of(stream)),
      "allocating " + std::to_string(bytes) + " bytes of workspace on " + (*gpu)->str());
  return reinterpret_cast<std::byte*>(pointer);
}

void release(std::byte* data, uint64_t, int device, void* stream) {
  const Result<const Gpu*> gpu = Gpu::get(device);
  if (!gpu.ok()) return;
  const CurrentContext current(**gpu);
  driver().cuMemFreeAsync(reinterpret_cast<api::CUdeviceptr>(data), stream_of(stream));
}

// --- Strided copies ---

// The parameter of the kernels in strided_copy.cuh.
struct Strided {
  int64_t elements = 1;
  int64_t shape[kMaxRank] = {};
  int64_t strides[kMaxRank] = {};
  int32_t rank = 1;
};

// Axes that lie behind one another as one.
Strided strided(const StridedCopy& copy) {
  Strided tensor;
  tensor.shape[0] = 1;
  for (size_t axis = copy.shape.size(); axis-- > 0;) {
    const int64_t size = copy.shape[axis];
    const int64_t stride = copy.strides.empty() ? tensor.elements : copy.strides[axis];
    tensor.elements *= size;
    if (size == 1) continue;
    const int32_t last = tensor.rank - 1;
    const bool none_yet = tensor.shape[last] == 1;
    if (!none_yet && stride == tensor.shape[last] * tensor.strides[last]) {
      tensor.shape[last] *= size;
      continue;
    }
    const int32_t at = none_yet ? 0 : tensor.rank++;
    tensor.shape[at] = size;
    tensor.strides[at] = stride;
  }
  return tensor;
}

// The kernels on one GPU, for elements of 1, 2, 4 and 8 bytes.
class CopyKernels {
 public:
  static Result<const CopyKernels*> on(const Gpu& gpu) {
    static std::mutex& mutex = *new std::mutex;
    static std::deque<CopyKernels>& all = *new std::deque<CopyKernels>;
    const std::lock_guard lock(mutex);
    while (all.size() <= static_cast<size_t>(gpu.index())) all.emplace_back();
    CopyKernels& kernels = all[static_cast<size_t>(gpu.index())];
    if (kernels.functions_[3] == nullptr) KILN_RETURN_IF_ERROR(kernels.load(gpu));
    return &kernels;
  }

  // Null for a size that no dtype has.
  api::CUfunction find(size_t element_bytes) const {
    for (size_t i = 0; i < std::size(functions_); ++i)
      if (element_bytes == size_t{1} << i) return functions_[i];
    return nullptr;
  }

 private:
  Status load(const Gpu& gpu) {
    constexpr const char* kNames[] = {"copy1", "copy2", "copy4", "copy8"};
    api::CUmodule module = nullptr;
    KILN_RETURN_IF_CUDA_ERROR(driver().cuModuleLoadData(&module, strided_copy_ptx()),
                              "loading the strided copy on " + gpu.str());
    for (size_t i = 0; i < std::size(kNames); ++i)
      KILN_RETURN_IF_CUDA_ERROR(driver().cuModuleGetFunction(&functions_[i], module, kNames[i]),
                                "loading the strided copy on " + gpu.str());
    return Status();
  }

  api::CUfunction functions_[4] = {};
};

Status copy_strided(const StridedCopy& copy, int device, void* stream) {
  const Result<const Gpu*> gpu = Gpu::get(device);
  if (!gpu.ok()) return gpu.status();
  const CurrentContext current(**gpu);
  const Result<const CopyKernels*> kernels = CopyKernels::on(**gpu);
  if (!kernels.ok()) return kernels.status();
  const api::CUfunction function = (*kernels)->find(copy.element_bytes);
  if (function == nullptr)
    return Status(StatusCode::Internal, "[cuda] there are no elements of " +
                                            std::to_string(copy.element_bytes) + " bytes");
  Strided tensor = strided(copy);
  constexpr int64_t kThreads = 256, kMostBlocks = 1 << 16;
  api::CUlaunchConfig config;
  config.block_x = kThreads;
  config.grid_x =
      static_cast<unsigned>(std::min((tensor.elements + kThreads - 1) / kThreads, kMostBlocks));
  config.stream = stream_of(stream);
  const void* from = copy.from;
  std::byte* to = copy.to;
  void* arguments[] = {&from, &to, &tensor};
  KILN_RETURN_IF_CUDA_ERROR(driver().cuLaunchKernelEx(&config, function, arguments, nullptr),
                            "copying a strided input on " + (*gpu)->str());
  return Status();
}

}  // namespace

const DeviceMemory kGpuMemory = {.type = DeviceType::Cuda,
                                 .has_streams = true,
                                 .count = Gpu::count,
                                 .allocate = allocate,
                                 .release = release,
                                 .copy_strided = copy_strided};

}  // namespace kiln::cuda
