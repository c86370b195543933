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

Result<std::byte*> allocate_aligned(uint64_t size) {
  if (size == 0) return static_cast<std::byte*>(nullptr);
  const bool huge = size >= 2 * kHugePage;
  const uint64_t alignment = huge ? kHugePage : kTensorAlignment;
  void* data = size > kLargest ? nullptr : std::aligned_alloc(alignment, align_up(size, alignment));
  if (data == nullptr)
    return Status(StatusCode::OutOfMemory, "cannot allocate " + std::to_string(size) + " bytes");
  if (huge) madvise(data, align_up(size, alignment), MADV_HUGEPAGE);
  return static_cast<std::byte*>(data);
}

void release_aligned(std::byte* data) { std::free(data); }

Result<AlignedBuffer> AlignedBuffer::allocate(uint64_t size) {
  const Result<std::byte*> data = allocate_aligned(size);
  if (!data.ok()) return data.status();
  return AlignedBuffer(*data, size);
}

AlignedBuffer::AlignedBuffer(AlignedBuffer&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}

AlignedBuffer& AlignedBuffer::operator=(AlignedBuffer&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(size_, other.size_);
  return *this;
}

AlignedBuffer::~AlignedBuffer() { release_aligned(data_); }

}  // namespace kiln
