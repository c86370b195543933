// Elements in memory and in registers.
//
// f16 and bf16 are computed with as f32: half_t and bfloat_t are how they lie in memory. So is float8_t,
// for numbers of e4m3 that are moved and converted. A bool is one
// byte in memory, 0 or 1, and bool in a register. from_memory() and to_memory<T>() convert; everything
// else is the same in both places.

#define DEVICE __device__ __forceinline__

struct half_t {
  unsigned short bits;
};
struct bfloat_t {
  unsigned short bits;
};
struct float8_t {
  unsigned char code;
};
struct bool_t {
  unsigned char byte;
};

DEVICE float from_memory(half_t x) {
  float result;
  asm("cvt.f32.f16 %0, %1;" : "=f"(result) : "h"(x.bits));
  return result;
}
DEVICE float from_memory(bfloat_t x) { return __uint_as_float((unsigned)x.bits << 16); }
// As f16, which has room for all values where the exponent is worth 2^8 less. NaN keeps its sign: what
// is moved is the same to the last bit.
DEVICE float from_memory(float8_t x) {
  const unsigned magnitude = x.code & 0x7f, sign = (x.code & 0x80u) << 24;
  if (magnitude == 0x7f) return __uint_as_float(0x7fc00000 | sign);
  return __uint_as_float(
      __float_as_uint(from_memory(half_t{(unsigned short)(magnitude << 7)}) * 256.f) | sign);
}
DEVICE bool from_memory(bool_t x) { return x.byte != 0; }
template <class T>
DEVICE T from_memory(T x) {
  return x;
}

template <class T>
struct Memory {
  template <class R>
  DEVICE static T of(R x) {
    return x;
  }
};
template <>
struct Memory<half_t> {
  DEVICE static half_t of(float x) {
    half_t result;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(result.bits) : "f"(x));
    return result;
  }
};
template <>
struct Memory<bfloat_t> {
  DEVICE static bfloat_t of(float x) {
    bfloat_t result;
    asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(result.bits) : "f"(x));
    return result;
  }
};
template <>
struct Memory<float8_t> {
  // To the nearest, ties to even, and at most 448: there are no infinities.
  DEVICE static float8_t of(float x) {
    const unsigned bits = __float_as_uint(x), magnitude = bits & 0x7fffffff;
    const unsigned normal = (magnitude + 0x7ffff + (magnitude >> 20 & 1) - 0x3c000000) >> 20;
    // Below 2^-6, adding 2^14 lines the mantissa up with the units of 2^-9.
    const unsigned subnormal = __float_as_uint(__uint_as_float(magnitude) + 16384.f) - 0x46800000;
    unsigned code = magnitude < 0x3c800000 ? subnormal : normal;
    if (magnitude >= 0x43e00000) code = magnitude > 0x7f800000 ? 0x7f : 0x7e;
    return {(unsigned char)(code | (bits >> 24 & 0x80))};
  }
};
template <>
struct Memory<bool_t> {
  DEVICE static bool_t of(bool x) { return {(unsigned char)x}; }
};
template <class T, class R>
DEVICE T to_memory(R x) {
  return Memory<T>::of(x);
}

// The nearest value of the type, in f32.
DEVICE float round_to_half(float x) { return from_memory(to_memory<half_t>(x)); }
DEVICE float round_to_bfloat(float x) { return from_memory(to_memory<bfloat_t>(x)); }
DEVICE float round_to_float8(float x) { return from_memory(to_memory<float8_t>(x)); }

// --- Several neighbours at once ---

template <int kBytes>
struct Chunk;
template <>
struct Chunk<16> {
  using type = uint4;
};
template <>
struct Chunk<8> {
  using type = uint2;
};
template <>
struct Chunk<4> {
  using type = unsigned int;
};
template <>
struct Chunk<2> {
  using type = unsigned short;
};
template <>
struct Chunk<1> {
  using type = unsigned char;
};

template <class T, int kCount>
struct Lanes {
  static constexpr int kBytes = kCount * (int)sizeof(T);
  static constexpr int kChunk = kBytes % 16 == 0 ? 16 : kBytes;
  using Raw = typename Chunk<kChunk>::type;
  union {
    Raw raw[kBytes / kChunk];
    T elements[kCount];
  };
};

// Whether a pointer is a multiple of 16 bytes: those of callers are what a view left them.
DEVICE bool is_aligned(const void* p) { return (unsigned long long)p % 16 == 0; }

// kCount neighbours at `from`: in pieces of 16 bytes if `aligned`, which says that `from` is a multiple
// of as many bytes, or of 16 if there are more.
template <int kCount, class T, class R>
DEVICE void load_lanes(const T* __restrict__ from, bool aligned, R (&to)[kCount]) {
  Lanes<T, kCount> lanes;
  if (aligned) {
#pragma unroll
    for (int i = 0; i < lanes.kBytes / lanes.kChunk; ++i)
      lanes.raw[i] = ((const typename Lanes<T, kCount>::Raw*)from)[i];
  } else {
#pragma unroll
    for (int i = 0; i < kCount; ++i) lanes.elements[i] = from[i];
  }
#pragma unroll
  for (int i = 0; i < kCount; ++i) to[i] = from_memory(lanes.elements[i]);
}

// The same without a conversion.
template <int kCount, class T>
DEVICE void copy_lanes(const T* __restrict__ from, bool aligned, T* to) {
  Lanes<T, kCount> lanes;
  static_assert(lanes.kBytes <= 16, "one access");
  if (aligned) {
    lanes.raw[0] = *(const typename Lanes<T, kCount>::Raw*)from;
  } else {
#pragma unroll
    for (int i = 0; i < kCount; ++i) lanes.elements[i] = from[i];
  }
#pragma unroll
  for (int i = 0; i < kCount; ++i) to[i] = lanes.elements[i];
}

template <int kCount, class T, class R>
DEVICE void store_lanes(T* to, bool aligned, const R (&from)[kCount]) {
  Lanes<T, kCount> lanes;
#pragma unroll
  for (int i = 0; i < kCount; ++i) lanes.elements[i] = to_memory<T>(from[i]);
  if (aligned) {
#pragma unroll
    for (int i = 0; i < lanes.kBytes / lanes.kChunk; ++i)
      ((typename Lanes<T, kCount>::Raw*)to)[i] = lanes.raw[i];
  } else {
#pragma unroll
    for (int i = 0; i < kCount; ++i) to[i] = lanes.elements[i];
  }
}

// --- Positions ---

template <class T>
DEVICE T index_min(T a, T b) {
  return a < b ? a : b;
}
template <class T>
DEVICE T index_max(T a, T b) {
  return a > b ? a : b;
}
// Rounds towards minus infinity.
template <class T>
DEVICE T index_div(T a, T b) {
  const T quotient = a / b;
  return quotient * b != a && (a < 0) != (b < 0) ? quotient - 1 : quotient;
}
template <class T>
DEVICE T index_mod(T a, T b) {
  const T rest = a % b;
  return rest != 0 && (rest < 0) != (b < 0) ? rest + b : rest;
}
