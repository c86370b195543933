// Borrowed views of the caller's tensors.
#pragma once

#include <cstdint>
#include <span>
#include <string>

#include "support/device_memory.h"
#include "support/dtype.h"

namespace kiln::runtime {

struct TensorView {
  void* data = nullptr;
  DType dtype = DType::F32;
  std::span<const int64_t> shape;
  std::span<const int64_t> strides;  // in elements; empty: row-major without gaps
  DeviceId device;                   // where the data lies
};

// Row-major without gaps. Strides of dimensions of one element do not matter, nor do any when there
// is no element.
bool is_contiguous(const TensorView& tensor);
// The copy of a tensor's elements to `to`, row-major. The tensor has at least one element.
StridedCopy copy_of(const TensorView& tensor, std::byte* to);
// Memory of some tensor's elements.
struct MemoryRange {
  const void* data = nullptr;
  uint64_t bytes = 0;
};
// From the first to the last byte of a tensor, whatever its strides.
MemoryRange range_of(const TensorView& tensor);
bool overlap(const MemoryRange& a, const MemoryRange& b);
// "[2, 3]"
std::string shape_str(std::span<const int64_t> shape);

}  // namespace kiln::runtime
