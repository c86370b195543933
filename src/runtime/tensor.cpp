#include "runtime/tensor.h"

#include <algorithm>
#include <cstring>

namespace kiln::runtime {
namespace {

template <typename Element>
std::byte* copy_row(const std::byte* from, int64_t count, int64_t stride, std::byte* to) {
  if (stride == 1) {
    std::memcpy(to, from, static_cast<size_t>(count) * sizeof(Element));
    return to + static_cast<size_t>(count) * sizeof(Element);
  }
  for (int64_t i = 0; i < count; ++i, to += sizeof(Element))
    std::memcpy(to, from + i * stride * static_cast<int64_t>(sizeof(Element)), sizeof(Element));
  return to;
}

// Copies a sub-tensor of the remaining dimensions; gives the end of what was written.
template <typename Element>
std::byte* copy_block(const std::byte* from, std::span<const int64_t> shape,
                      std::span<const int64_t> strides, std::byte* to) {
  if (shape.size() == 1) return copy_row<Element>(from, shape[0], strides[0], to);
  for (int64_t i = 0; i < shape[0]; ++i)
    to = copy_block<Element>(from + i * strides[0] * static_cast<int64_t>(sizeof(Element)),
                             shape.subspan(1), strides.subspan(1), to);
  return to;
}

}  // namespace

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

void copy_to_contiguous(const TensorView& tensor, std::byte* to) {
  const auto* from = static_cast<const std::byte*>(tensor.data);
  if (is_contiguous(tensor)) {
    size_t size = dtype_size(tensor.dtype);
    for (const int64_t extent : tensor.shape) size *= static_cast<size_t>(extent);
    std::memcpy(to, from, size);
    return;
  }
  switch (dtype_size(tensor.dtype)) {
    case 1:
      copy_block<uint8_t>(from, tensor.shape, tensor.strides, to);
      break;
    case 2:
      copy_block<uint16_t>(from, tensor.shape, tensor.strides, to);
      break;
    case 4:
      copy_block<uint32_t>(from, tensor.shape, tensor.strides, to);
      break;
    default:
      copy_block<uint64_t>(from, tensor.shape, tensor.strides, to);
  }
}

std::string shape_str(std::span<const int64_t> shape) {
  std::string text = "[";
  for (size_t i = 0; i < shape.size(); ++i)
    text.append(i == 0 ? "" : ", ").append(std::to_string(shape[i]));
  return text + "]";
}

}  // namespace kiln::runtime
