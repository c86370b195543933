#include "support/aligned_buffer.h"

#include <sys/mman.h>

#include <cstdlib>
#include <utility>

namespace kiln {
namespace {

constexpr uint64_t kHugePage = uint64_t{2} << 20;
// No machine has more; keeps the rounding below from overflowing.
constexpr uint64_t kLargest = uint64_t{1} << 47;

}  // namespace

Result<AlignedBuffer> AlignedBuffer::allocate(uint64_t size) {
  if (size == 0) return AlignedBuffer();
  const bool huge = size >= 2 * kHugePage;
  const uint64_t alignment = huge ? kHugePage : kTensorAlignment;
  void* data = size > kLargest ? nullptr : std::aligned_alloc(alignment, align_up(size, alignment));
  if (data == nullptr)
    return Status(StatusCode::OutOfMemory, "cannot allocate " + std::to_string(size) + " bytes");
  if (huge) madvise(data, align_up(size, alignment), MADV_HUGEPAGE);
  return AlignedBuffer(static_cast<std::byte*>(data), size);
}

AlignedBuffer::AlignedBuffer(AlignedBuffer&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}

AlignedBuffer& AlignedBuffer::operator=(AlignedBuffer&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(size_, other.size_);
  return *this;
}

AlignedBuffer::~AlignedBuffer() { std::free(data_); }

}  // namespace kiln
