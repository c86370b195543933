#include "runtime/tensor.h"

namespace kiln::runtime {

bool is_contiguous(const TensorView& tensor) {
  if (tensor.strides.empty()) return true;
  bool packed = true;
  int64_t expected = 1;
  for (size_t i = tensor.shape.size(); i-- > 0;) {
    const int64_t size = tensor.shape[i];
    if (size == 0) return true;
    if (size != 1 && tensor.strides[i] != expected) packed = false;
    expected *= size;
  }
  return packed;
}

StridedCopy copy_of(const TensorView& tensor, std::byte* to) {
  return {.from = tensor.data,
          .to = to,
          .element_bytes = dtype_size(tensor.dtype),
          .shape = tensor.shape,
          .strides = tensor.strides};
}

MemoryRange range_of(const TensorView& tensor) {
  int64_t first = 0, last = 0, packed = 1;
  for (size_t i = tensor.shape.size(); i-- > 0;) {
    const int64_t size = tensor.shape[i];
    if (size == 0) return {};
    const int64_t step = (size - 1) * (tensor.strides.empty() ? packed : tensor.strides[i]);
    (step < 0 ? first : last) += step;
    packed *= size;
  }
  const auto element = static_cast<int64_t>(dtype_size(tensor.dtype));
  return {static_cast<const std::byte*>(tensor.data) + first * element,
          static_cast<uint64_t>((last - first + 1) * element)};
}

bool overlap(const MemoryRange& a, const MemoryRange& b) {
  const auto x = reinterpret_cast<uintptr_t>(a.data), y = reinterpret_cast<uintptr_t>(b.data);
  return x < y + b.bytes && y < x + a.bytes;
}

std::string shape_str(std::span<const int64_t> shape) {
  std::string text = "[";
  for (size_t i = 0; i < shape.size(); ++i)
    text.append(i == 0 ? "" : ", ").append(std::to_string(shape[i]));
  return text + "]";
}

}  // namespace kiln::runtime
