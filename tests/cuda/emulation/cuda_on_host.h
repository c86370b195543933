// What the text of CUDA kernels uses, for a C++ compiler: kernels run on the CPU, thread by thread. Only
// for the tests: it is what the kernels mean, not how fast they are.
//
// Barriers and shuffles are in threads.cpp, in the program that loads the kernels.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <utility>

#define __device__
#define __forceinline__ inline
// One block runs at a time.
#define __shared__ static

struct uint2 {
  unsigned x, y;
};
struct uint4 {
  unsigned x, y, z, w;
};
struct Coordinate {
  unsigned x;
};

extern "C" {
extern Coordinate kiln_host_thread, kiln_host_block, kiln_host_block_size;
void kiln_host_sync_block();
void kiln_host_sync_warp();
// A word for each thread of a block, for shuffles.
extern uint64_t kiln_host_words[1024];
float kiln_host_from_half(uint16_t bits);
uint16_t kiln_host_to_half(float number);
uint16_t kiln_host_to_bfloat(float number);
}

#define threadIdx kiln_host_thread
#define blockIdx kiln_host_block
#define blockDim kiln_host_block_size

inline void __syncthreads() { kiln_host_sync_block(); }
inline void __syncwarp() { kiln_host_sync_warp(); }

// What the thread `from` has. All threads of a warp come here together.
template <class T>
T exchange(T x, unsigned from) {
  std::memcpy(&kiln_host_words[threadIdx.x], &x, sizeof x);
  kiln_host_sync_warp();
  T result;
  std::memcpy(&result, &kiln_host_words[from], sizeof result);
  kiln_host_sync_warp();
  return result;
}
template <class T>
T __shfl_xor_sync(unsigned, T x, int distance) {
  return exchange(x, threadIdx.x ^ static_cast<unsigned>(distance));
}
template <class T>
T __shfl_up_sync(unsigned, T x, int distance) {
  const auto lanes = static_cast<unsigned>(distance);
  return exchange(x, threadIdx.x % 32 >= lanes ? threadIdx.x - lanes : threadIdx.x);
}
template <class T>
T __shfl_sync(unsigned, T x, int lane) {
  return exchange(x, threadIdx.x / 32 * 32 + static_cast<unsigned>(lane));
}

inline void atomicOr(unsigned long long* word, unsigned long long bits) { *word |= bits; }

template <class To, class From>
To same_bits(From from) {
  static_assert(sizeof(To) == sizeof(From));
  To to;
  std::memcpy(&to, &from, sizeof to);
  return to;
}
inline float __uint_as_float(unsigned bits) { return same_bits<float>(bits); }
inline unsigned __float_as_uint(float x) { return same_bits<unsigned>(x); }
inline float __int_as_float(int bits) { return same_bits<float>(bits); }
inline double __longlong_as_double(long long bits) { return same_bits<double>(bits); }
inline long long __double_as_longlong(double number) { return same_bits<long long>(number); }

inline double normcdf(double x) { return 0.5 * std::erfc(-x / std::sqrt(2.0)); }
inline float normcdff(float x) { return static_cast<float>(normcdf(x)); }

// The instructions that kernels ask for by name.
inline float max_nan(float a, float b) { return a != a || a > b ? a : b; }
inline float min_nan(float a, float b) { return a != a || a < b ? a : b; }

// Calls a kernel with arguments given by their addresses, as a launch does.
template <class... Arguments, size_t... kIndex>
void call(void (*kernel)(Arguments...), void** arguments, std::index_sequence<kIndex...>) {
  kernel(*static_cast<Arguments*>(arguments[kIndex])...);
}
template <class... Arguments>
void call(void (*kernel)(Arguments...), void** arguments) {
  call(kernel, arguments, std::index_sequence_for<Arguments...>());
}
