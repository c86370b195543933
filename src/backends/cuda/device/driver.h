// NVIDIA's driver, opened when it is first asked for: programs load on machines that have none.
#pragma once

#include <string>

#include "backends/cuda/device/driver_api.h"
#include "support/status.h"

namespace kiln::cuda {

// Null where there is no driver, or none that has all functions: `reason` says what is missing.
const api::Functions* find_driver(std::string& reason);

// Of a machine whose driver find_driver() found.
const api::Functions& driver();

// The version of CUDA that it is for: 12040 for 12.4.
int driver_version();

// What went wrong: "[cuda] the launch of \"linear_3\" failed: CUDA_ERROR_...: ...".
Status error_status(api::CUresult result, const std::string& what);

}  // namespace kiln::cuda

#define KILN_RETURN_IF_CUDA_ERROR(call, what)                                     \
  if (const ::kiln::cuda::api::CUresult kiln_result_ = (call); kiln_result_ != 0) \
  return ::kiln::cuda::error_status(kiln_result_, what)
