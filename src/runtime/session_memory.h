// Memory that a session takes for its runs: from the caller's allocator, or else from the device.
#pragma once

#include <cstddef>
#include <cstdint>

#include "support/device_memory.h"
#include "support/status.h"

namespace kiln::runtime {

// The caller's functions; both or none. They may be called by whatever thread uses a session, and
// throw nothing.
struct AllocatorHooks {
  void* user = nullptr;
  // Null: there is no memory.
  void* (*allocate)(void* user, uint64_t bytes, uint64_t alignment, DeviceId device,
                    void* stream) = nullptr;
  void (*release)(void* user, void* data, uint64_t bytes, DeviceId device, void* stream) = nullptr;
};

// A block of memory, or none; its session gives it back.
struct MemoryBlock {
  std::byte* data = nullptr;
  uint64_t bytes = 0;
};

class SessionMemory {
 public:
  SessionMemory(const DeviceMemory& memory, DeviceId device, const AllocatorHooks& hooks)
      : memory_(memory), device_(device), hooks_(hooks) {}

  // At least `bytes`: what a smaller block held is lost, and never are both there at once.
  Status grow(MemoryBlock& block, uint64_t bytes, void* stream) const {
    return block.bytes >= bytes ? Status() : replace(block, bytes, stream);
  }
  void release(MemoryBlock& block, void* stream) const;
  Status copy(const StridedCopy& copy, void* stream) const {
    return memory_.copy_strided(copy, device_.index, stream);
  }

  DeviceId device() const { return device_; }
  bool is_host() const { return memory_.is_host(); }
  bool has_streams() const { return memory_.has_streams; }

 private:
  Status replace(MemoryBlock& block, uint64_t bytes, void* stream) const;
  Result<std::byte*> allocate(uint64_t bytes, void* stream) const;

  const DeviceMemory& memory_;
  const DeviceId device_;
  const AllocatorHooks hooks_;
};

}  // namespace kiln::runtime
