// Reductions: what is joined, and how the threads that share a row join their parts.
//
// A group of threads is a warp, a part of one, a block, or a column of a block. Every thread brings the
// part it has and gets the whole. Parts are joined in an order that depends on the size of the group
// alone, so results do not change from run to run.

template <class T>
struct Limits;
template <>
struct Limits<float> {
  DEVICE static float lowest() { return __int_as_float(0xff800000); }
  DEVICE static float highest() { return __int_as_float(0x7f800000); }
};
template <>
struct Limits<double> {
  DEVICE static double lowest() { return __longlong_as_double(0xfff0000000000000ull); }
  DEVICE static double highest() { return __longlong_as_double(0x7ff0000000000000ull); }
};
#define INTEGER_LIMITS(type, low, high)      \
  template <>                                \
  struct Limits<type> {                      \
    DEVICE static type lowest() { return low; }   \
    DEVICE static type highest() { return high; } \
  };
INTEGER_LIMITS(bool, false, true)
INTEGER_LIMITS(signed char, -128, 127)
INTEGER_LIMITS(unsigned char, 0, 255)
INTEGER_LIMITS(short, -32768, 32767)
INTEGER_LIMITS(int, -2147483647 - 1, 2147483647)
INTEGER_LIMITS(long long, -9223372036854775807ll - 1, 9223372036854775807ll)

// --- What is joined ---

DEVICE float join_sum(float a, float b) { return a + b; }
DEVICE double join_sum(double a, double b) { return a + b; }
template <class T>
DEVICE T join_sum(T a, T b) {
  return op_add(a, b);
}
DEVICE float join_product(float a, float b) { return a * b; }
DEVICE double join_product(double a, double b) { return a * b; }
template <class T>
DEVICE T join_product(T a, T b) {
  return op_mul(a, b);
}

struct Sum {
  template <class T>
  DEVICE static T neutral() {
    return (T)0;
  }
  template <class T>
  DEVICE static T join(T a, T b) {
    return join_sum(a, b);
  }
};
struct Prod {
  template <class T>
  DEVICE static T neutral() {
    return (T)1;
  }
  template <class T>
  DEVICE static T join(T a, T b) {
    return join_product(a, b);
  }
};

// NaN if either is: one instruction for f32.
DEVICE float join_max(float a, float b) {
  float result;
  asm("max.NaN.f32 %0, %1, %2;" : "=f"(result) : "f"(a), "f"(b));
  return result;
}
DEVICE float join_min(float a, float b) {
  float result;
  asm("min.NaN.f32 %0, %1, %2;" : "=f"(result) : "f"(a), "f"(b));
  return result;
}
template <class T>
DEVICE T join_max(T a, T b) {
  return op_maximum(a, b);
}
template <class T>
DEVICE T join_min(T a, T b) {
  return op_minimum(a, b);
}
struct Max {
  template <class T>
  DEVICE static T neutral() {
    return Limits<T>::lowest();
  }
  template <class T>
  DEVICE static T join(T a, T b) {
    return join_max(a, b);
  }
};
struct Min {
  template <class T>
  DEVICE static T neutral() {
    return Limits<T>::highest();
  }
  template <class T>
  DEVICE static T join(T a, T b) {
    return join_min(a, b);
  }
};

// A value and where it was. A thread that saw none stands behind all positions.
template <class T>
struct Best {
  T value;
  long long at;
};
template <bool kMax>
struct ArgBest {
  template <class T>
  DEVICE static bool beats(T a, T b) {
    return (kMax ? a > b : a < b) || (a != a && b == b);
  }
  template <class B>
  DEVICE static B neutral() {
    return none((B*)nullptr);
  }
  template <class T>
  DEVICE static Best<T> none(Best<T>*) {
    return {kMax ? Limits<T>::lowest() : Limits<T>::highest(), 0x7fffffffffffffffll};
  }
  // The earlier position wins among equals.
  template <class T>
  DEVICE static Best<T> join(Best<T> a, Best<T> b) {
    const bool equal = !beats(a.value, b.value) && !beats(b.value, a.value);
    return beats(b.value, a.value) || (equal && b.at < a.at) ? b : a;
  }
};
using ArgMax = ArgBest<true>;
using ArgMin = ArgBest<false>;

// --- Groups of threads ---

DEVICE int shuffle(int x, int distance) { return __shfl_xor_sync(0xffffffffu, x, distance); }
DEVICE bool shuffle(bool x, int distance) { return shuffle((int)x, distance) != 0; }
DEVICE signed char shuffle(signed char x, int distance) { return (signed char)shuffle((int)x, distance); }
DEVICE unsigned char shuffle(unsigned char x, int distance) {
  return (unsigned char)shuffle((int)x, distance);
}
DEVICE short shuffle(short x, int distance) { return (short)shuffle((int)x, distance); }
DEVICE float shuffle(float x, int distance) { return __shfl_xor_sync(0xffffffffu, x, distance); }
DEVICE double shuffle(double x, int distance) { return __shfl_xor_sync(0xffffffffu, x, distance); }
DEVICE long long shuffle(long long x, int distance) {
  return __shfl_xor_sync(0xffffffffu, x, distance);
}
template <class T>
DEVICE Best<T> shuffle(Best<T> x, int distance) {
  return {shuffle(x.value, distance), shuffle(x.at, distance)};
}

// kThreads neighbours of a warp, all of which call it.
template <class Op, int kThreads, class T>
DEVICE T reduce_warp(T x) {
#pragma unroll
  for (int distance = kThreads / 2; distance > 0; distance /= 2)
    x = Op::join(x, shuffle(x, distance));
  return x;
}

// All threads of a block of kWarps warps.
template <class Op, int kWarps, class T>
DEVICE T reduce_block(T x) {
  __shared__ T parts[kWarps];
  const int lane = (int)threadIdx.x % 32;
  x = reduce_warp<Op, 32>(x);
  if (lane == 0) parts[threadIdx.x / 32] = x;
  __syncthreads();
  x = reduce_warp<Op, 32>(lane < kWarps ? parts[lane] : Op::template neutral<T>());
  __syncthreads();  // the parts are free for the next call
  return x;
}

// Threads kColumns apart: column c of the block is a group.
template <class Op, int kColumns, int kRows, class T>
DEVICE T reduce_column(T x) {
  __shared__ T parts[kRows][kColumns];
  const int column = (int)threadIdx.x % kColumns;
  parts[threadIdx.x / kColumns][column] = x;
  __syncthreads();
  x = parts[0][column];
#pragma unroll
  for (int row = 1; row < kRows; ++row) x = Op::join(x, parts[row][column]);
  __syncthreads();
  return x;
}

// --- Scans: a thread gets what all threads up to it have brought, on top of `carry` ---

DEVICE int shuffle_up(int x, int distance) { return __shfl_up_sync(0xffffffffu, x, distance); }
DEVICE bool shuffle_up(bool x, int distance) { return shuffle_up((int)x, distance) != 0; }
DEVICE signed char shuffle_up(signed char x, int distance) {
  return (signed char)shuffle_up((int)x, distance);
}
DEVICE unsigned char shuffle_up(unsigned char x, int distance) {
  return (unsigned char)shuffle_up((int)x, distance);
}
DEVICE short shuffle_up(short x, int distance) { return (short)shuffle_up((int)x, distance); }
DEVICE float shuffle_up(float x, int distance) { return __shfl_up_sync(0xffffffffu, x, distance); }
DEVICE double shuffle_up(double x, int distance) { return __shfl_up_sync(0xffffffffu, x, distance); }
DEVICE long long shuffle_up(long long x, int distance) {
  return __shfl_up_sync(0xffffffffu, x, distance);
}

// What the last thread of a warp has.
template <class T>
DEVICE T shuffle_last(T x) {
  return __shfl_sync(0xffffffffu, x, 31);
}
DEVICE bool shuffle_last(bool x) { return shuffle_last((int)x) != 0; }
DEVICE signed char shuffle_last(signed char x) { return (signed char)shuffle_last((int)x); }
DEVICE unsigned char shuffle_last(unsigned char x) { return (unsigned char)shuffle_last((int)x); }
DEVICE short shuffle_last(short x) { return (short)shuffle_last((int)x); }

// All threads of a block of kWarps warps, or of a warp where that is 1; `carry` becomes the total.
template <class Op, int kWarps, class T>
DEVICE T scan_group(T x, T& carry) {
  __shared__ T totals[kWarps];
  const int lane = (int)threadIdx.x % 32, warp = kWarps == 1 ? 0 : (int)threadIdx.x / 32;
#pragma unroll
  for (int distance = 1; distance < 32; distance *= 2) {
    const T before = shuffle_up(x, distance);
    if (lane >= distance) x = Op::join(before, x);
  }
  T total = x;
  if (kWarps > 1) {
    if (lane == 31) totals[warp] = x;
    __syncthreads();
    T before = Op::template neutral<T>();
    total = before;
    for (int i = 0; i < kWarps; ++i) {
      if (i == warp) before = total;
      total = Op::join(total, totals[i]);
    }
    x = Op::join(before, x);
    __syncthreads();  // the totals are free for the next call
  } else {
    total = shuffle_last(x);
  }
  x = Op::join(carry, x);
  carry = Op::join(carry, total);
  return x;
}
