// Work that is worth a thread of its own, in what each kind of kernel counts.
//
// A share of less than some 4 us of a core is not handed over: an estimate, from a microsecond or two
// until a worker that still spins has begun, and as much for what it then has to fetch from another
// core's caches. Contractions count multiply-adds, 32 a cycle with two units of 16 lanes:
// 500'000 are 16'000 cycles, 4 us at 4 GHz. Loop nests count simple operations on single elements
// (nest_axis.h); 16'384 of them are some 4'000 elements of an addition, 50 KB to and from memory,
// which takes 1 to 3 us at 20 to 40 GB/s, and as long where what is computed is a polynomial.
#pragma once

#include <algorithm>
#include <cstdint>

namespace kiln::cpu {

inline constexpr int64_t kMultiplyAddsPerThread = 500'000;
inline constexpr int64_t kOperationsPerThread = 16 * 1024;

// Tasks that are together worth a thread, if one takes `work` of what `per_thread` counts.
inline int64_t tasks_per_thread(int64_t per_thread, int64_t work) {
  return std::max<int64_t>(1, per_thread / std::max<int64_t>(1, work));
}

}  // namespace kiln::cpu
