// The part of NVIDIA's driver API that is used, declared here so that building needs no CUDA
// toolkit. Names, types and values are those of cuda.h, whose binary interface is stable from CUDA
// 12.0 on; tests/cuda/driver_api_test.cpp compares them with a cuda.h where one is installed.
#pragma once

#include <cstddef>
#include <cstdint>

// NOLINTBEGIN(readability-identifier-naming): the names are NVIDIA's
namespace kiln::cuda::api {

using CUresult = int;
using CUdevice = int;
using CUdeviceptr = uint64_t;
using CUcontext = struct CUctx_st*;
using CUmodule = struct CUmod_st*;
using CUfunction = struct CUfunc_st*;
using CUstream = struct CUstream_st*;
using CUevent = struct CUevent_st*;
using CUgraph = struct CUgraph_st*;
using CUgraphExec = struct CUgraphExec_st*;

inline constexpr CUresult kSuccess = 0, kOutOfMemory = 2, kNoDevice = 100, kInvalidImage = 200,
                          kNoBinaryForGpu = 209, kInvalidPtx = 218, kNoJitCompiler = 221,
                          kUnsupportedPtx = 222, kJitDisabled = 223;

// CUdevice_attribute
inline constexpr int kMajor = 75, kMinor = 76;
// CUfunction_attribute
inline constexpr int kMaxDynamicShared = 8;
// CUmemhostalloc flags
inline constexpr unsigned kHostPortable = 1, kHostMapped = 2;
// CUstream and CUevent flags
inline constexpr unsigned kNonBlocking = 1, kNoTiming = 2;
// CUstreamCaptureMode, CUstreamCaptureStatus
inline constexpr int kCaptureThreadLocal = 1, kCaptureRelaxed = 2, kCaptureNone = 0;
// CUlaunchAttributeID
inline constexpr int kProgrammaticSerialization = 6;
struct alignas(8) CUlaunchAttribute {
  int id = 0;
  char pad[4] = {};
  union {
    char bytes[64];
    int flag;
  } value = {};
};

struct CUlaunchConfig {
  unsigned grid_x = 1, grid_y = 1, grid_z = 1;
  unsigned block_x = 1, block_y = 1, block_z = 1;
  unsigned shared_bytes = 0;
  CUstream stream = nullptr;
  CUlaunchAttribute* attributes = nullptr;
  unsigned num_attributes = 0;
};

struct alignas(128) CUtensorMap {
  uint64_t opaque[16] = {};
};

// Name, parameters; all return CUresult.
#define KILN_CUDA_FUNCTIONS(X)                                                                \
  X(cuInit, unsigned flags)                                                                   \
  X(cuDriverGetVersion, int* version)                                                         \
  X(cuGetErrorName, CUresult error, const char** text)                                        \
  X(cuGetErrorString, CUresult error, const char** text)                                      \
  X(cuDeviceGetCount, int* count)                                                             \
  X(cuDeviceGet, CUdevice* device, int index)                                                 \
  X(cuDeviceGetName, char* name, int size, CUdevice device)                                   \
  X(cuDeviceGetAttribute, int* value, int attribute, CUdevice device)                         \
  X(cuDevicePrimaryCtxRetain, CUcontext* context, CUdevice device)                            \
  X(cuCtxGetCurrent, CUcontext* context)                                                      \
  X(cuCtxGetDevice, CUdevice* device)                                                         \
  X(cuCtxPushCurrent_v2, CUcontext context)                                                   \
  X(cuCtxPopCurrent_v2, CUcontext* context)                                                   \
  X(cuCtxSynchronize)                                                                         \
  X(cuModuleLoadData, CUmodule* module, const void* image)                                    \
  X(cuModuleUnload, CUmodule module)                                                          \
  X(cuModuleGetFunction, CUfunction* function, CUmodule module, const char* name)             \
  X(cuFuncSetAttribute, CUfunction function, int attribute, int value)                        \
  X(cuLaunchKernelEx, const CUlaunchConfig* config, CUfunction function, void** params,       \
    void** extra)                                                                             \
  X(cuMemGetInfo_v2, size_t* free, size_t* total)                                             \
  X(cuMemAlloc_v2, CUdeviceptr* pointer, size_t size)                                         \
  X(cuMemFree_v2, CUdeviceptr pointer)                                                        \
  X(cuMemAllocAsync, CUdeviceptr* pointer, size_t size, CUstream stream)                      \
  X(cuMemFreeAsync, CUdeviceptr pointer, CUstream stream)                                     \
  X(cuMemHostAlloc, void** pointer, size_t size, unsigned flags)                              \
  X(cuMemFreeHost, void* pointer)                                                             \
  X(cuMemHostRegister_v2, void* pointer, size_t size, unsigned flags)                         \
  X(cuMemHostUnregister, void* pointer)                                                       \
  X(cuMemcpyHtoDAsync_v2, CUdeviceptr to, const void* from, size_t size, CUstream stream)     \
  X(cuMemcpyDtoHAsync_v2, void* to, CUdeviceptr from, size_t size, CUstream stream)           \
  X(cuMemcpyDtoDAsync_v2, CUdeviceptr to, CUdeviceptr from, size_t size, CUstream stream)     \
  X(cuStreamCreate, CUstream* stream, unsigned flags)                                         \
  X(cuStreamDestroy_v2, CUstream stream)                                                      \
  X(cuStreamSynchronize, CUstream stream)                                                     \
  X(cuStreamWaitEvent, CUstream stream, CUevent event, unsigned flags)                        \
  X(cuStreamIsCapturing, CUstream stream, int* status)                                        \
  X(cuStreamBeginCapture_v2, CUstream stream, int mode)                                       \
  X(cuStreamEndCapture, CUstream stream, CUgraph* graph)                                      \
  X(cuThreadExchangeStreamCaptureMode, int* mode)                                             \
  X(cuEventCreate, CUevent* event, unsigned flags)                                            \
  X(cuEventDestroy_v2, CUevent event)                                                         \
  X(cuEventRecord, CUevent event, CUstream stream)                                            \
  X(cuEventSynchronize, CUevent event)                                                        \
  X(cuEventElapsedTime, float* milliseconds, CUevent start, CUevent end)                      \
  X(cuGraphInstantiateWithFlags, CUgraphExec* exec, CUgraph graph, unsigned long long flags)  \
  X(cuGraphLaunch, CUgraphExec exec, CUstream stream)                                         \
  X(cuGraphExecDestroy, CUgraphExec exec)                                                     \
  X(cuGraphDestroy, CUgraph graph)                                                            \
  X(cuTensorMapEncodeTiled, CUtensorMap* map, int dtype, uint32_t rank, void* address,        \
    const uint64_t* sizes, const uint64_t* strides, const uint32_t* box,                      \
    const uint32_t* element_strides, int interleave, int swizzle, int l2_promotion, int fill) \
  X(cuTensorMapEncodeIm2col, CUtensorMap* map, int dtype, uint32_t rank, void* address,       \
    const uint64_t* sizes, const uint64_t* strides, const int* lower, const int* upper,       \
    uint32_t channels, uint32_t pixels, const uint32_t* element_strides, int interleave,      \
    int swizzle, int l2_promotion, int fill)

// Where the functions are.
struct Functions {
#define KILN_CUDA_DECLARE(name, ...) CUresult (*name)(__VA_ARGS__) = nullptr;
  KILN_CUDA_FUNCTIONS(KILN_CUDA_DECLARE)
#undef KILN_CUDA_DECLARE
};

}  // namespace kiln::cuda::api
// NOLINTEND(readability-identifier-naming)
