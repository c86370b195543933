// Memory for tensors: aligned, not initialised, released on destruction.
#pragma once

#include <cstddef>
#include <cstdint>

#include "support/status.h"

namespace kiln {

// The alignment of everything the runtime allocates for kernels: a cache line, an AVX-512 register.
inline constexpr uint64_t kTensorAlignment = 64;

constexpr uint64_t align_up(uint64_t value, uint64_t alignment) {
  return (value + alignment - 1) / alignment * alignment;
}

// Memory of kTensorAlignment; large blocks lie on huge pages where the system has them. Zero bytes: a
// null pointer.
Result<std::byte*> allocate_aligned(uint64_t size);
void release_aligned(std::byte* data);

class AlignedBuffer {
 public:
  // Of allocate_aligned.
  static Result<AlignedBuffer> allocate(uint64_t size);

  AlignedBuffer() = default;
  AlignedBuffer(AlignedBuffer&& other) noexcept;
  AlignedBuffer& operator=(AlignedBuffer&& other) noexcept;
  ~AlignedBuffer();

  std::byte* data() const { return data_; }
  uint64_t size() const { return size_; }

 private:
  AlignedBuffer(std::byte* data, uint64_t size) : data_(data), size_(size) {}

  std::byte* data_ = nullptr;
  uint64_t size_ = 0;
};

}  // namespace kiln
