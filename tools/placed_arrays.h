// Arrays where a session takes them: as they are on the CPU, in copies on a GPU.
#pragma once

#include <vector>

#include "gpu.h"
#include "npy.h"

namespace tools {

class PlacedArrays {
 public:
  // `gpu` is null for the CPU. The arrays and the GPU outlive this.
  PlacedArrays(std::vector<Array>& arrays, Gpu* gpu);
  ~PlacedArrays();
  PlacedArrays(const PlacedArrays&) = delete;
  PlacedArrays& operator=(const PlacedArrays&) = delete;

  const std::vector<kiln::Tensor>& tensors() const { return tensors_; }
  // The same as the C API takes them; valid while this is.
  std::vector<kiln_tensor> views() const;
  // Brings what was written on a GPU into the arrays.
  void fetch();

 private:
  std::vector<Array>& arrays_;
  Gpu* gpu_;
  std::vector<uint64_t> addresses_;  // on a GPU, by array; 0: it has no elements
  std::vector<kiln::Tensor> tensors_;
};

}  // namespace tools
