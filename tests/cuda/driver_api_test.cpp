// The declarations of backends/cuda/device/driver_api.h against NVIDIA's own, where a cuda.h is
// installed: functions, values and structs.
#include "backends/cuda/device/driver_api.h"

#include <gtest/gtest.h>

#if __has_include(<cuda.h>)
#include <cuda.h>

#include <type_traits>

// cuda.h 13 has its second version alone, which drivers before 12.8 lack; drivers have both.
#undef cuEventElapsedTime
// NOLINTNEXTLINE(readability-identifier-naming): the name is NVIDIA's
extern "C" CUresult cuEventElapsedTime(float* milliseconds, CUevent start, CUevent end);

namespace kiln::cuda {
namespace {

// As far as a call is concerned: both are pointers, or integers or enums of the same size.
template <typename Ours, typename Theirs>
constexpr bool same_parameter() {
  if constexpr (std::is_pointer_v<Ours> || std::is_pointer_v<Theirs>)
    return std::is_pointer_v<Ours> && std::is_pointer_v<Theirs>;
  else
    return sizeof(Ours) == sizeof(Theirs);
}

template <typename Ours, typename Theirs>
struct SameCall : std::false_type {};
template <typename... Ours, typename Result, typename... Theirs>
  requires(sizeof...(Ours) == sizeof...(Theirs))
struct SameCall<api::CUresult (*)(Ours...), Result (*)(Theirs...)>
    : std::bool_constant<sizeof(Result) == sizeof(api::CUresult) &&
                         (same_parameter<Ours, Theirs>() && ...)> {};

#define KILN_CUDA_COMPARE(name, ...)                                           \
  static_assert(SameCall<decltype(api::Functions::name), decltype(&::name)>(), \
                #name " has other parameters in cuda.h");
KILN_CUDA_FUNCTIONS(KILN_CUDA_COMPARE)
#undef KILN_CUDA_COMPARE

TEST(DriverApi, HasTheValuesOfCudaH) {
  EXPECT_EQ(api::kSuccess, CUDA_SUCCESS);
  EXPECT_EQ(api::kOutOfMemory, CUDA_ERROR_OUT_OF_MEMORY);
  EXPECT_EQ(api::kNoDevice, CUDA_ERROR_NO_DEVICE);
  EXPECT_EQ(api::kInvalidImage, CUDA_ERROR_INVALID_IMAGE);
  EXPECT_EQ(api::kNoBinaryForGpu, CUDA_ERROR_NO_BINARY_FOR_GPU);
  EXPECT_EQ(api::kInvalidPtx, CUDA_ERROR_INVALID_PTX);
  EXPECT_EQ(api::kNoJitCompiler, CUDA_ERROR_JIT_COMPILER_NOT_FOUND);
  EXPECT_EQ(api::kUnsupportedPtx, CUDA_ERROR_UNSUPPORTED_PTX_VERSION);
  EXPECT_EQ(api::kJitDisabled, CUDA_ERROR_JIT_COMPILATION_DISABLED);
  EXPECT_EQ(api::kMajor, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR);
  EXPECT_EQ(api::kMinor, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR);
  EXPECT_EQ(api::kMaxDynamicShared, CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES);
  EXPECT_EQ(api::kHostPortable, CU_MEMHOSTALLOC_PORTABLE);
  EXPECT_EQ(api::kHostMapped, CU_MEMHOSTALLOC_DEVICEMAP);
  EXPECT_EQ(api::kNonBlocking, CU_STREAM_NON_BLOCKING);
  EXPECT_EQ(api::kNoTiming, CU_EVENT_DISABLE_TIMING);
  EXPECT_EQ(api::kCaptureThreadLocal, CU_STREAM_CAPTURE_MODE_THREAD_LOCAL);
  EXPECT_EQ(api::kCaptureRelaxed, CU_STREAM_CAPTURE_MODE_RELAXED);
  EXPECT_EQ(api::kCaptureNone, CU_STREAM_CAPTURE_STATUS_NONE);
  EXPECT_EQ(api::kProgrammaticSerialization, CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION);
}

TEST(DriverApi, HasTheStructsOfCudaH) {
  EXPECT_EQ(sizeof(api::CUlaunchConfig), sizeof(::CUlaunchConfig));
  EXPECT_EQ(offsetof(api::CUlaunchConfig, shared_bytes),
            offsetof(::CUlaunchConfig, sharedMemBytes));
  EXPECT_EQ(offsetof(api::CUlaunchConfig, stream), offsetof(::CUlaunchConfig, hStream));
  EXPECT_EQ(offsetof(api::CUlaunchConfig, attributes), offsetof(::CUlaunchConfig, attrs));
  EXPECT_EQ(offsetof(api::CUlaunchConfig, num_attributes), offsetof(::CUlaunchConfig, numAttrs));
  EXPECT_EQ(sizeof(api::CUlaunchAttribute), sizeof(::CUlaunchAttribute));
  EXPECT_EQ(offsetof(api::CUlaunchAttribute, value), offsetof(::CUlaunchAttribute, value));
  EXPECT_EQ(sizeof(api::CUtensorMap), sizeof(::CUtensorMap));
  EXPECT_EQ(alignof(api::CUtensorMap), alignof(::CUtensorMap));
}

}  // namespace
}  // namespace kiln::cuda

#else
TEST(DriverApi, HasTheValuesOfCudaH) { GTEST_SKIP() << "there is no cuda.h on this machine"; }
#endif
