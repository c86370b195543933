#include "backends/cpu/compile/image/locked_memory.h"

#include <malloc.h>
#include <pthread.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <new>

namespace kiln::cpu {
namespace {

constexpr size_t kAlignment = 64;  // of the reserve's blocks

// Initial-exec: looking at it takes no memory.
#define KILN_THREAD [[gnu::tls_model("initial-exec")]] thread_local
KILN_THREAD LockedReserve* reserve = nullptr;
KILN_THREAD int locks = 0;  // that this thread has taken since it has a reserve
#undef KILN_THREAD

void count_lock(int change) noexcept {
  if (reserve != nullptr) locks += change;
}

// The status of a call that takes a lock.
int counted(int status) noexcept {
  if (status == 0) count_lock(1);
  return status;
}

void* take_reserve(size_t size) noexcept {
  return may_use_locked_reserve() ? reserve->take(size) : nullptr;
}

// Memory by one of the forms of operator new, `real`. The handler that it calls throws for a thread
// that may use its reserve; where that does not help, the handler keeps the thread.
template <typename Real>
void* allocate(size_t size, size_t alignment, const Real& real) {
  if (!may_use_locked_reserve()) return real();
  try {
    return real();
  } catch (const std::bad_alloc&) {
    if (void* block = alignment <= kAlignment ? reserve->take(size) : nullptr) return block;
  }
  use_locked_reserve(nullptr);
  return real();
}

}  // namespace

LockedReserve::LockedReserve()
    : classes_{{{64, std::vector<void*>(256)},
                {1024, std::vector<void*>(64)},
                {16 << 10, std::vector<void*>(16)},
                {512 << 10, std::vector<void*>(5)}}} {
  for (Class& each : classes_)
    for (void*& block : each.blocks) block = std::aligned_alloc(kAlignment, each.size);
}

LockedReserve::~LockedReserve() {
  for (Class& each : classes_)
    for (void* block : each.blocks) std::free(block);
}

void* LockedReserve::take(size_t size) noexcept {
  const std::lock_guard lock(mutex_);
  for (Class& each : classes_) {
    if (each.size < size) continue;
    while (!each.blocks.empty()) {
      void* block = each.blocks.back();
      each.blocks.pop_back();  // keeps its capacity
      if (block != nullptr) return block;
    }
  }
  return nullptr;
}

void use_locked_reserve(LockedReserve* given) noexcept {
  reserve = given;
  locks = 0;
}

bool may_use_locked_reserve() noexcept { return reserve != nullptr && locks > 0; }

}  // namespace kiln::cpu

using kiln::cpu::allocate;
using kiln::cpu::count_lock;
using kiln::cpu::counted;
using kiln::cpu::take_reserve;

// The names are the linker's.
// NOLINTBEGIN(bugprone-reserved-identifier,readability-identifier-naming,cert-dcl37-c,cert-dcl51-cpp)
extern "C" {

// NAME(...), and what is behind it.
#define KILN_WRAP(type, name, ...) \
  type __real_##name(__VA_ARGS__); \
  type __wrap_##name(__VA_ARGS__)

// --- Locks ---

KILN_WRAP(int, pthread_mutex_lock, pthread_mutex_t* mutex) {
  return counted(__real_pthread_mutex_lock(mutex));
}
KILN_WRAP(int, pthread_mutex_trylock, pthread_mutex_t* mutex) {
  return counted(__real_pthread_mutex_trylock(mutex));
}
KILN_WRAP(int, pthread_mutex_unlock, pthread_mutex_t* mutex) {
  count_lock(-1);
  return __real_pthread_mutex_unlock(mutex);
}
KILN_WRAP(int, pthread_rwlock_rdlock, pthread_rwlock_t* lock) {
  return counted(__real_pthread_rwlock_rdlock(lock));
}
KILN_WRAP(int, pthread_rwlock_wrlock, pthread_rwlock_t* lock) {
  return counted(__real_pthread_rwlock_wrlock(lock));
}
KILN_WRAP(int, pthread_rwlock_unlock, pthread_rwlock_t* lock) {
  count_lock(-1);
  return __real_pthread_rwlock_unlock(lock);
}
KILN_WRAP(int, pthread_once, pthread_once_t* control, void (*call)(void)) {
  count_lock(1);
  const int status = __real_pthread_once(control, call);
  count_lock(-1);
  return status;
}
KILN_WRAP(int, __cxa_guard_acquire, void* guard) {
  const int fresh = __real___cxa_guard_acquire(guard);
  if (fresh != 0) count_lock(1);
  return fresh;
}
KILN_WRAP(void, __cxa_guard_release, void* guard) {
  count_lock(-1);
  __real___cxa_guard_release(guard);
}
KILN_WRAP(void, __cxa_guard_abort, void* guard) {
  count_lock(-1);
  __real___cxa_guard_abort(guard);
}

// --- Memory ---

KILN_WRAP(void*, malloc, size_t size) {
  void* block = __real_malloc(size);
  return block != nullptr ? block : take_reserve(size);
}
KILN_WRAP(void*, calloc, size_t count, size_t size) {
  void* block = __real_calloc(count, size);
  size_t bytes = 0;
  if (block != nullptr || __builtin_mul_overflow(count, size, &bytes)) return block;
  block = take_reserve(bytes);
  return block == nullptr ? nullptr : std::memset(block, 0, bytes);
}
KILN_WRAP(void*, realloc, void* old, size_t size) {
  void* block = __real_realloc(old, size);
  if (block != nullptr || size == 0) return block;
  block = take_reserve(size);
  if (block == nullptr || old == nullptr) return block;
  std::memcpy(block, old, std::min(size, malloc_usable_size(old)));
  std::free(old);
  return block;
}

// operator new(size_t) and operator new(size_t, std::align_val_t) by their symbols.
KILN_WRAP(void*, _Znwm, size_t size) {
  return allocate(size, 1, [&] { return __real__Znwm(size); });
}
KILN_WRAP(void*, _ZnwmSt11align_val_t, size_t size, std::align_val_t alignment) {
  return allocate(size, static_cast<size_t>(alignment),
                  [&] { return __real__ZnwmSt11align_val_t(size, alignment); });
}
}
// NOLINTEND(bugprone-reserved-identifier,readability-identifier-naming,cert-dcl37-c,cert-dcl51-cpp)
