#include "cuda/fake_driver/fake_driver.h"

#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "backends/cuda/device/driver_api.h"

// NOLINTBEGIN(readability-identifier-naming): the names are NVIDIA's
#define KILN_FAKE extern "C" __attribute__((visibility("default")))

namespace {

kiln::test::FakeGpu gpu;

// An object that the driver gives, and the number of those there are.
template <typename Handle>
int make(Handle* handle, int& count) {
  *handle = reinterpret_cast<Handle>(std::malloc(1));
  ++count;
  return 0;
}

template <typename Handle>
int destroy(Handle handle, int& count) {
  std::free(reinterpret_cast<void*>(handle));
  --count;
  return 0;
}

}  // namespace

KILN_FAKE kiln::test::FakeGpu* kiln_fake_gpu(void) { return &gpu; }

namespace kiln::cuda::api {

KILN_FAKE CUresult cuDriverGetVersion(int* version) {
  *version = gpu.driver_version;
  return kSuccess;
}

KILN_FAKE CUresult cuGetErrorName(CUresult error, const char** text) {
  *text = error == kOutOfMemory ? "CUDA_ERROR_OUT_OF_MEMORY" : "CUDA_ERROR_OF_THE_FAKE";
  return kSuccess;
}

KILN_FAKE CUresult cuGetErrorString(CUresult, const char** text) {
  *text = "what the fake says";
  return kSuccess;
}

KILN_FAKE CUresult cuDeviceGetCount(int* count) {
  *count = 3;
  return kSuccess;
}

KILN_FAKE CUresult cuDeviceGet(CUdevice* device, int index) {
  *device = index;
  return kSuccess;
}

KILN_FAKE CUresult cuDeviceGetName(char* name, int size, CUdevice) {
  std::snprintf(name, static_cast<size_t>(size), "%s", gpu.name);
  return kSuccess;
}

KILN_FAKE CUresult cuDeviceGetAttribute(int* value, int attribute, CUdevice device) {
  const int sm = device == 0 ? gpu.sm : device == 1 ? 100 : 120;
  *value = attribute == kMajor ? sm / 10 : attribute == kMinor ? sm % 10 : 0;
  return kSuccess;
}

KILN_FAKE CUresult cuDevicePrimaryCtxRetain(CUcontext* context, CUdevice) {
  *context = reinterpret_cast<CUcontext>(&gpu);
  return kSuccess;
}

KILN_FAKE CUresult cuCtxGetCurrent(CUcontext* context) {
  *context = gpu.current == 0 ? nullptr : reinterpret_cast<CUcontext>(&gpu);
  return kSuccess;
}

KILN_FAKE CUresult cuCtxGetDevice(CUdevice* device) {
  *device = gpu.current;
  return kSuccess;
}

KILN_FAKE CUresult cuModuleLoadData(CUmodule* module, const void* image) {
  const int first = *static_cast<const unsigned char*>(image);
  gpu.loaded = first < 4 ? first : gpu.loads % 4;
  ++gpu.loads;
  return gpu.load_result != 0 ? gpu.load_result : make(module, gpu.modules);
}

KILN_FAKE CUresult cuModuleUnload(CUmodule module) { return destroy(module, gpu.modules); }

KILN_FAKE CUresult cuModuleGetFunction(CUfunction* function, CUmodule module, const char*) {
  *function = reinterpret_cast<CUfunction>(module);
  return kSuccess;
}

KILN_FAKE CUresult cuLaunchKernelEx(const CUlaunchConfig*, CUfunction, void** parameters, void**) {
  ++gpu.launches;
  if (gpu.at_launch != nullptr) gpu.at_launch(parameters);
  return kSuccess;
}

KILN_FAKE CUresult cuMemGetInfo_v2(size_t* free, size_t* total) {
  *free = gpu.free_bytes;
  *total = gpu.total_bytes;
  return kSuccess;
}

KILN_FAKE CUresult cuMemAlloc_v2(CUdeviceptr* pointer, size_t size) {
  if (size > gpu.largest_allocation) return kOutOfMemory;
  *pointer = reinterpret_cast<CUdeviceptr>(std::aligned_alloc(256, (size + 255) / 256 * 256));
  ++gpu.allocations;
  gpu.allocated_bytes += size;
  return kSuccess;
}

KILN_FAKE CUresult cuMemFree_v2(CUdeviceptr pointer) { return destroy(pointer, gpu.allocations); }

KILN_FAKE CUresult cuMemAllocAsync(CUdeviceptr* pointer, size_t size, CUstream) {
  return cuMemAlloc_v2(pointer, size);
}

KILN_FAKE CUresult cuMemFreeAsync(CUdeviceptr pointer, CUstream) { return cuMemFree_v2(pointer); }

KILN_FAKE CUresult cuMemHostAlloc(void** pointer, size_t size, unsigned) {
  if (size > gpu.largest_host_allocation) return kOutOfMemory;
  *pointer = std::calloc(size, 1);
  ++gpu.host_allocations;
  return kSuccess;
}

KILN_FAKE CUresult cuMemFreeHost(void* pointer) { return destroy(pointer, gpu.host_allocations); }

KILN_FAKE CUresult cuMemHostRegister_v2(void*, size_t size, unsigned) {
  if (size > gpu.largest_host_allocation) return kOutOfMemory;
  ++gpu.host_allocations;
  return kSuccess;
}

KILN_FAKE CUresult cuMemHostUnregister(void*) {
  --gpu.host_allocations;
  return kSuccess;
}

KILN_FAKE CUresult cuMemcpyHtoDAsync_v2(CUdeviceptr to, const void* from, size_t size, CUstream) {
  std::memcpy(reinterpret_cast<void*>(to), from, size);
  return kSuccess;
}

KILN_FAKE CUresult cuStreamCreate(CUstream* stream, unsigned) { return make(stream, gpu.streams); }
KILN_FAKE CUresult cuStreamDestroy_v2(CUstream stream) { return destroy(stream, gpu.streams); }

KILN_FAKE CUresult cuStreamIsCapturing(CUstream, int* status) {
  *status = kCaptureNone;
  return kSuccess;
}

KILN_FAKE CUresult cuStreamEndCapture(CUstream, CUgraph* graph) { return make(graph, gpu.graphs); }
KILN_FAKE CUresult cuGraphDestroy(CUgraph graph) { return destroy(graph, gpu.graphs); }
KILN_FAKE CUresult cuGraphInstantiateWithFlags(CUgraphExec* exec, CUgraph, unsigned long long) {
  return make(exec, gpu.graphs);
}
KILN_FAKE CUresult cuGraphExecDestroy(CUgraphExec exec) { return destroy(exec, gpu.graphs); }

KILN_FAKE CUresult cuEventCreate(CUevent* event, unsigned) { return make(event, gpu.events); }
KILN_FAKE CUresult cuEventDestroy_v2(CUevent event) { return destroy(event, gpu.events); }

KILN_FAKE CUresult cuEventElapsedTime(float* milliseconds, CUevent, CUevent) {
  *milliseconds = gpu.milliseconds[gpu.loaded];
  return kSuccess;
}

// What only the compile half uses.
KILN_FAKE CUresult cuCtxCreate_v2(CUcontext* context, unsigned, CUdevice) {
  return make(context, gpu.contexts);
}
KILN_FAKE CUresult cuCtxDestroy_v2(CUcontext context) { return destroy(context, gpu.contexts); }

#ifdef KILN_FAKE_OLD
// A driver that lacks a function: nobody finds one that is hidden.
extern "C" __attribute__((visibility("hidden"))) CUresult cuTensorMapEncodeIm2col(
    CUtensorMap*, int, uint32_t, void*, const uint64_t*, const uint64_t*, const int*, const int*,
    uint32_t, uint32_t, const uint32_t*, int, int, int, int) {
  return kSuccess;
}
#endif

}  // namespace kiln::cuda::api
// NOLINTEND(readability-identifier-naming)
