// Instructions of tensor-core kernels, and what goes with them: copies from global to shared memory
// that run beside the arithmetic, fragments, products of 16 x 8 x 16, clusters of blocks.
//
// Elements of f16 and bf16 are handled as their bits (unsigned short), two to a register; the
// constant kBf16, written in front of this text, says which of the two they are.
//
// Shared memory holds tiles as rows of 16-byte chunks. The chunk of a row is permuted by the row's
// number, so that the eight rows that one ldmatrix reads lie in different banks; swizzled() is that
// permutation for rows of a given number of chunks.

using bits16 = unsigned short;

template <int Chunks>
__device__ __forceinline__ int swizzled(int row, int chunk) {
  if constexpr (Chunks >= 8) return chunk ^ (row & 7);
  if constexpr (Chunks == 4) return chunk ^ ((row >> 1) & 3);
  if constexpr (Chunks == 2) return chunk ^ ((row >> 2) & 1);
  return chunk;
}

// 16 bytes of which the last 16 - `bytes` are zeros; with 0 nothing is read.
__device__ __forceinline__ void copy_async(unsigned to, const void* from, int bytes) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(from), "r"(bytes)
               : "memory");
}
__device__ __forceinline__ void commit_copies() { asm volatile("cp.async.commit_group;" ::: "memory"); }
// Until at most `Left` of the groups committed last are on their way.
template <int Left>
__device__ __forceinline__ void wait_copies() {
  asm volatile("cp.async.wait_group %0;" ::"n"(Left) : "memory");
}

__device__ __forceinline__ void load_matrices(unsigned (&r)[4], unsigned address) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(address)
               : "memory");
}
__device__ __forceinline__ void load_matrices_transposed(unsigned (&r)[4], unsigned address) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(address)
               : "memory");
}

__device__ __forceinline__ unsigned load_word(unsigned address) {
  unsigned word;
  asm volatile("ld.shared.u32 %0, [%1];" : "=r"(word) : "r"(address) : "memory");
  return word;
}

// c += a * b
__device__ __forceinline__ void multiply(float (&c)[4], const unsigned (&a)[4], unsigned b0,
                                         unsigned b1) {
  if constexpr (kBf16) {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, "
        "{%8, %9}, {%0, %1, %2, %3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
  } else {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, "
        "{%8, %9}, {%0, %1, %2, %3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
  }
}

// The same of 16 x 8 x 8, elements of f32 that round_to_tf32() has rounded.
__device__ __forceinline__ void multiply_tf32(float (&c)[4], const unsigned (&a)[4], unsigned b0,
                                              unsigned b1) {
  asm("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, "
      "{%8, %9}, {%0, %1, %2, %3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// Of 16 x 8 x 32: numbers of f8e4m3 as f16, by what are two products of 16 x 8 x 16. Which of the four
// numbers in a register belongs to which step of k is the same for both operands.
__device__ __forceinline__ void multiply_widened(float (&c)[4], const unsigned (&a)[4][2],
                                                 const unsigned (&b0)[2], const unsigned (&b1)[2]) {
  const unsigned first[4] = {a[0][0], a[1][0], a[0][1], a[1][1]};
  const unsigned second[4] = {a[2][0], a[3][0], a[2][1], a[3][1]};
  multiply(c, first, b0[0], b0[1]);
  multiply(c, second, b1[0], b1[1]);
}

// The same by instructions for f8e4m3 (sm_89), whose sums have about 14 bits.
__device__ __forceinline__ void multiply_float8(float (&c)[4], const unsigned (&a)[4], unsigned b0,
                                                unsigned b1) {
#if __CUDA_ARCH__ >= 890
  asm("mma.sync.aligned.m16n8k32.row.col.f32.e4m3.e4m3.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, "
      "{%8, %9}, {%0, %1, %2, %3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
#endif
}

// u8 times i8, of 16 x 8 x 32.
__device__ __forceinline__ void multiply_integers(int (&c)[4], const unsigned (&a)[4], unsigned b0,
                                                  unsigned b1) {
  asm("mma.sync.aligned.m16n8k32.row.col.s32.u8.s8.s32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, "
      "{%8, %9}, {%0, %1, %2, %3};"
      : "+r"(c[0]), "+r"(c[1]), "+r"(c[2]), "+r"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// To the nearest number of 11 bits: products ignore the bits behind them, which alone would make all of
// them too small. What is not finite stays as it is. The conversion of the machine takes several
// times as long as these two instructions.
__device__ __forceinline__ void round_to_tf32(unsigned (&r)[4]) {
#pragma unroll
  for (int i = 0; i < 4; ++i)
    r[i] += fabsf(__uint_as_float(r[i])) < __int_as_float(0x7f800000) ? 0x1000u : 0u;
}

// Values of f32, given in `low`, as high + low; what is left of low beyond 11 bits is not multiplied.
__device__ __forceinline__ void split_tf32(unsigned (&high)[4], unsigned (&low)[4]) {
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    high[i] = (low[i] + 0x1000u) & 0xffffe000u;
    low[i] = __float_as_uint(__uint_as_float(low[i]) - __uint_as_float(high[i]));
  }
}

// Two values in one register, `low` in the low half.
__device__ __forceinline__ unsigned pack16(float low, float high) {
  unsigned result;
  if constexpr (kBf16) {
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(result) : "f"(high), "f"(low));
  } else {
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(result) : "f"(high), "f"(low));
  }
  return result;
}

__device__ __forceinline__ float from16(bits16 bits) {
  float result;
  if constexpr (kBf16) {
    result = __uint_as_float(static_cast<unsigned>(bits) << 16);
  } else {
    asm("cvt.f32.f16 %0, %1;" : "=f"(result) : "h"(bits));
  }
  return result;
}
