// Every function of the driver that is used: it succeeds, unless fake_driver.cpp has one that does more.
#include "backends/cuda/device/driver_api.h"

// NOLINTBEGIN(readability-identifier-naming): the names are NVIDIA's
#pragma GCC diagnostic ignored "-Wunused-parameter"
#define KILN_FAKE_DEFAULT(name, ...)                                                   \
  extern "C" __attribute__((visibility("default"), weak)) CUresult name(__VA_ARGS__) { \
    return kSuccess;                                                                   \
  }

namespace kiln::cuda::api {

KILN_CUDA_FUNCTIONS(KILN_FAKE_DEFAULT)

}  // namespace kiln::cuda::api
// NOLINTEND(readability-identifier-naming)
