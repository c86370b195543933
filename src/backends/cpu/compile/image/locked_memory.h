// Memory for threads that hold a lock where there is none.
#pragma once

#include <array>
#include <cstddef>
#include <mutex>
#include <vector>

namespace kiln::cpu {

// LLVM takes memory while it holds locks that all its threads share: objects that are made when a
// function is first called, tables behind a mutex. A thread that stayed there without memory would
// keep the lock, and the others would wait for it for ever. So what a thread allocates under a lock
// comes from a reserve, once the process has no more, and the thread stays at its next allocation
// without a lock (llvm_threads.h).
//
// Locks and allocations are seen by linking: `--wrap` leads pthread_mutex_lock, __cxa_guard_acquire,
// operator new, malloc and their like through this file, in every program that LLVM is linked to
// (CMakeLists.txt). Only threads that have a Reserve are counted.
class LockedReserve {
 public:
  // Takes about 3 MiB, for tables like those that X86CodeGen sorts when it first needs them.
  LockedReserve();
  ~LockedReserve();
  LockedReserve(const LockedReserve&) = delete;
  LockedReserve& operator=(const LockedReserve&) = delete;

  // A block of at least `size` bytes, aligned to 64, that free() takes; null if none is left.
  // Allocates nothing.
  void* take(size_t size) noexcept;

 private:
  struct Class {
    size_t size;
    std::vector<void*> blocks;
  };
  std::array<Class, 4> classes_;
  std::mutex mutex_;
};

// What the calling thread allocates under a lock comes from `reserve` where there is no memory, from
// now on; null: no more.
void use_locked_reserve(LockedReserve* reserve) noexcept;

// Whether the calling thread holds a lock and has a reserve to go on with: an allocation that fails
// must not keep it. Takes no memory.
bool may_use_locked_reserve() noexcept;

}  // namespace kiln::cpu
