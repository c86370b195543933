#include "runtime/session_memory.h"

#include "support/aligned_buffer.h"

namespace kiln::runtime {

Status SessionMemory::replace(MemoryBlock& block, uint64_t bytes, void* stream) const {
  release(block, stream);
  const Result<std::byte*> data = allocate(bytes, stream);
  if (!data.ok()) return data.status();
  block = {*data, bytes};
  return Status();
}

void SessionMemory::release(MemoryBlock& block, void* stream) const {
  if (block.data == nullptr) return;
  if (hooks_.release != nullptr)
    hooks_.release(hooks_.user, block.data, block.bytes, device_, stream);
  else
    memory_.release(block.data, block.bytes, device_.index, stream);
  block = {};
}

Result<std::byte*> SessionMemory::allocate(uint64_t bytes, void* stream) const {
  if (hooks_.allocate == nullptr) return memory_.allocate(bytes, device_.index, stream);
  void* data = hooks_.allocate(hooks_.user, bytes, kTensorAlignment, device_, stream);
  if (data == nullptr)
    return Status(StatusCode::OutOfMemory, "the session's allocator has no " +
                                               std::to_string(bytes) + " bytes on " +
                                               device_str(device_));
  if (reinterpret_cast<uintptr_t>(data) % kTensorAlignment == 0)
    return static_cast<std::byte*>(data);
  if (hooks_.release != nullptr) hooks_.release(hooks_.user, data, bytes, device_, stream);
  return Status(StatusCode::InvalidArgument,
                "the session's allocator gave memory that is not aligned to " +
                    std::to_string(kTensorAlignment) + " bytes");
}

}  // namespace kiln::runtime
