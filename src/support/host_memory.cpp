#include <cstring>

#include "support/aligned_buffer.h"
#include "support/device_memory.h"

namespace kiln {
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

int count() { return 1; }

Result<std::byte*> allocate(uint64_t bytes, int, void*) { return allocate_aligned(bytes); }

void release(std::byte* data, uint64_t, int, void*) { release_aligned(data); }

Status copy_strided(const StridedCopy& copy, int, void*) {
  const auto* from = static_cast<const std::byte*>(copy.from);
  if (copy.strides.empty()) {
    size_t bytes = copy.element_bytes;
    for (const int64_t extent : copy.shape) bytes *= static_cast<size_t>(extent);
    std::memcpy(copy.to, from, bytes);
    return Status();
  }
  switch (copy.element_bytes) {
    case 1:
      copy_block<uint8_t>(from, copy.shape, copy.strides, copy.to);
      break;
    case 2:
      copy_block<uint16_t>(from, copy.shape, copy.strides, copy.to);
      break;
    case 4:
      copy_block<uint32_t>(from, copy.shape, copy.strides, copy.to);
      break;
    default:
      copy_block<uint64_t>(from, copy.shape, copy.strides, copy.to);
  }
  return Status();
}

}  // namespace

const DeviceMemory kHostMemory = {.type = DeviceType::Cpu,
                                  .has_streams = false,
                                  .count = count,
                                  .allocate = allocate,
                                  .release = release,
                                  .copy_strided = copy_strided};

std::string device_str(DeviceId device) {
  switch (device.type) {
    case DeviceType::Cpu:
      return "the CPU";
    case DeviceType::Cuda:
      return "cuda:" + std::to_string(device.index);
  }
  return "device type " + std::to_string(static_cast<int>(device.type));
}

}  // namespace kiln
