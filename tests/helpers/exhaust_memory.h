// A process without memory. For the child of a death test.
#pragma once

#include <sys/resource.h>

#include <cstddef>
#include <cstdlib>

// The sanitizers end a process that gets no memory.
#if !defined(KILN_SANITIZES_ADDRESSES) && !defined(KILN_SANITIZES_THREADS)
#define KILN_CAN_EXHAUST_MEMORY

namespace kiln::test {

inline void* volatile kept = nullptr;  // allocations that the compiler may not leave out

// Takes all that the process and the calling thread may have.
inline void exhaust_memory() {
  const rlimit none{0, RLIM_INFINITY};
  if (setrlimit(RLIMIT_AS, &none) != 0) std::abort();  // nothing new
  for (size_t size = size_t{1} << 24; size >= 16; size /= 2) {
    do {
      kept = std::malloc(size);
    } while (kept != nullptr);
  }
}

}  // namespace kiln::test
#endif
