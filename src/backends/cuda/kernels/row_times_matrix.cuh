// One row times a matrix whose columns are contiguous along k, or times two such matrices: bound by the
// memory that they are read from, once. Elements of the row (RowElement) and of the matrix (Element) are of one
// type, or the matrix has numbers of f8e4m3, which are widened in registers.
//
// kAlong warps share k of kColumns columns, each a stretch of 32 vectors of 16 bytes at a time; a
// block has kBlockColumns = kWarps / kAlong * kColumns columns. The row itself comes through the
// first-level cache. Lanes and then warps add up in a fixed order.
//
// What does not depend on the kernel in front is fetched before that has ended: the first stretches of
// constant columns wait in registers (kEarly).

constexpr int kEach = 16 / static_cast<int>(sizeof(Element));  // elements of a vector
constexpr int kBlockColumns = kWarps / kAlong * kColumns;
constexpr int kSlots = kColumns * kSums;  // sums of a warp

struct alignas(16) ElementVector {
  Element at[kEach];
};
struct alignas(16) RowVector {
  RowElement at[kEach];
};

__device__ __forceinline__ ElementVector fetch_vector(const Element* from) {
  const uint4 bits = __ldg(reinterpret_cast<const uint4*>(from));
  return *reinterpret_cast<const ElementVector*>(&bits);
}

template <typename T>
__device__ __forceinline__ void widen_four(const T* four, float (&to)[4]) {
#pragma unroll
  for (int e = 0; e < 4; ++e) to[e] = static_cast<float>(from_memory(four[e]));
}
__device__ __forceinline__ void widen_four(const float8_t* four, float (&to)[4]) {
  unsigned halves[2];
  widen_float8(*reinterpret_cast<const unsigned*>(four), halves);
#pragma unroll
  for (int e = 0; e < 4; ++e)
    to[e] = from_memory(half_t{static_cast<unsigned short>(halves[e / 2] >> e % 2 * 16)});
}

template <typename Sum, typename X, typename Y>
__device__ __forceinline__ void add_products(Sum& sum, const X& x, const Y& y) {
  if constexpr (sizeof(Element) == 1) {
#pragma unroll
    for (int first = 0; first < kEach; first += 4) {
      float left[4], right[4];
      widen_four(x.at + first, left);
      widen_four(y.at + first, right);
#pragma unroll
      for (int e = 0; e < 4; ++e) sum = fmaf(left[e], right[e], sum);
    }
  } else {
#pragma unroll
    for (int e = 0; e < kEach; ++e)
      sum = fma_sum(static_cast<Sum>(from_memory(x.at[e])), static_cast<Sum>(from_memory(y.at[e])), sum);
  }
}
// u8 times i8.
template <typename X, typename Y>
__device__ __forceinline__ void add_products(int& sum, const X& x, const Y& y) {
#pragma unroll
  for (int first = 0; first < kEach; first += 4)
    asm("dp4a.u32.s32 %0, %1, %2, %0;"
        : "+r"(sum)
        : "r"(reinterpret_cast<const unsigned*>(x.at)[first / 4]),
          "r"(reinterpret_cast<const unsigned*>(y.at)[first / 4]));
}

// Column strides in elements, the same for both matrices; `finish_one` as in tile_result.cuh. `wait`
// comes back when the kernel in front has ended.
template <typename FinishOne, typename W>
__device__ __forceinline__ void multiply_row(const RowElement* row, const Element* first,
                                             const Element* second, long long depth, long long n,
                                             long long column_stride, long long column0,
                                             const FinishOne& finish_one, const W& wait) {
  __shared__ Acc partial[kWarps][kSlots];
  const int warp = static_cast<int>(threadIdx.x) / 32, lane = static_cast<int>(threadIdx.x) % 32;
  const long long column = column0 + warp / kAlong * kColumns;
  const bool aligned = ((reinterpret_cast<unsigned long long>(row) |
                         reinterpret_cast<unsigned long long>(first) |
                         reinterpret_cast<unsigned long long>(second) |
                         column_stride * sizeof(Element)) & 15) == 0;
  Acc sums[kSlots] = {};
  const int count = n - column < kColumns ? static_cast<int>(n - column < 0 ? 0 : n - column) : kColumns;
  const auto from = [&](int slot) {
    const int c = slot % kColumns;
    return (slot < kColumns ? first : second) + ((count > 0 ? column : 0) + (c < count ? c : 0)) * column_stride;
  };
  constexpr long long kStep = kAlong * 32 * kEach;
  long long k = (warp % kAlong * 32 + lane) * kEach;
  const bool early = aligned && count > 0 && k + (kEarly - 1) * kStep + kEach <= depth;
  ElementVector waiting[kEarly > 0 ? kEarly : 1][kSlots];
  if (kEarly > 0 && early) {
#pragma unroll
    for (int i = 0; i < kEarly; ++i) {
#pragma unroll
      for (int s = 0; s < kSlots; ++s) waiting[i][s] = fetch_vector(from(s) + k + i * kStep);
    }
  }
  wait();
  if (kEarly > 0 && early) {
#pragma unroll
    for (int i = 0; i < kEarly; ++i) {
      const RowVector x = *reinterpret_cast<const RowVector*>(row + k + i * kStep);
#pragma unroll
      for (int s = 0; s < kSlots; ++s) add_products(sums[s], x, waiting[i][s]);
    }
    k += kEarly * kStep;
  }
  if (aligned && count > 0) {
#pragma unroll(kSums == 1 ? 4 : 2)
    for (; k + kEach <= depth; k += kStep) {
      const RowVector x = *reinterpret_cast<const RowVector*>(row + k);
#pragma unroll
      for (int s = 0; s < kSlots; ++s)
        add_products(sums[s], x, *reinterpret_cast<const ElementVector*>(from(s) + k));
    }
  }
  if (count > 0) {
    for (; k < depth; k += kStep) {
      for (int e = 0; e < kEach && k + e < depth; ++e) {
        const Acc x = static_cast<Acc>(from_memory(row[k + e]));
#pragma unroll
        for (int s = 0; s < kSlots; ++s)
          sums[s] = fma_sum(x, static_cast<Acc>(from_memory(from(s)[k + e])), sums[s]);
      }
    }
  }
#pragma unroll
  for (int s = 0; s < kSlots; ++s) {
#pragma unroll
    for (int distance = 16; distance > 0; distance /= 2)
      sums[s] += __shfl_xor_sync(0xffffffffu, sums[s], distance);
    if (lane == 0) partial[warp][s] = sums[s];
  }
  __syncthreads();
  for (int c = static_cast<int>(threadIdx.x); c < kBlockColumns; c += kWarps * 32) {
    if (column0 + c >= n) break;
    ColumnSums all;
#pragma unroll
    for (int s = 0; s < kSums; ++s) {
      all.of[s] = 0;
#pragma unroll
      for (int i = 0; i < kAlong; ++i)
        all.of[s] += partial[c / kColumns * kAlong + i][s * kColumns + c % kColumns];
    }
    finish_one(0, column0 + c, all);
  }
}
