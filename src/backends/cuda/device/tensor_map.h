// The maps by which the copy engine (TMA) of a GPU finds its way in a buffer.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "backends/cuda/device/driver.h"
#include "backends/executable.h"
#include "engine/spec.h"
#include "support/status.h"

namespace kiln::cuda {

// A map of a launch with the sizes of a binding: what remains is where the buffer lies.
class TensorMap {
 public:
  TensorMap(const engine::TensorMapSpec& spec, const BindRequest& request);

  // Makes `map` for a buffer at an address, which is a multiple of kTensorMapAlignment. `kernel` is
  // for errors.
  Status encode(uint64_t address, const std::string& kernel, api::CUtensorMap& map) const;

 private:
  const engine::TensorMapSpec& spec_;
  uint64_t offset_ = 0;
  std::vector<uint64_t> sizes_, strides_;
  std::vector<uint32_t> box_, element_strides_;
};

// Where a buffer that is mapped may begin.
inline constexpr uint64_t kTensorMapAlignment = 16;

}  // namespace kiln::cuda
