// One row times a matrix whose columns are contiguous along k: bound by the memory that the matrix
// is read from, once.
//
// kAlong warps share k of kColumns columns, each a stretch of 32 vectors of 16 bytes at a time; a
// block has kBlockColumns = kWarps / kAlong * kColumns columns. The row itself comes through the
// first-level cache. Lanes and then warps add up in a fixed order.

constexpr int kEach = 16 / static_cast<int>(sizeof(Element));  // elements of a vector
constexpr int kBlockColumns = kWarps / kAlong * kColumns;

struct alignas(16) ElementVector {
  Element at[kEach];
};

// column stride in elements; `finish_one` as in tile_result.cuh.
template <typename FinishOne>
__device__ __forceinline__ void multiply_row(const Element* row, const Element* matrix,
                                             long long depth, long long n, long long column_stride,
                                             long long column0, const FinishOne& finish_one) {
  __shared__ Acc partial[kWarps][kColumns];
  const int warp = static_cast<int>(threadIdx.x) / 32, lane = static_cast<int>(threadIdx.x) % 32;
  const long long column = column0 + warp / kAlong * kColumns;
  const bool aligned = ((reinterpret_cast<unsigned long long>(row) |
                         reinterpret_cast<unsigned long long>(matrix) |
                         column_stride * sizeof(Element)) & 15) == 0;
  Acc sums[kColumns] = {};
  const int count = n - column < kColumns ? static_cast<int>(n - column < 0 ? 0 : n - column) : kColumns;
  const Element* from = matrix + (count > 0 ? column : 0) * column_stride;
  const long long step = kAlong * 32 * kEach;
  long long k = (warp % kAlong * 32 + lane) * kEach;
  if (aligned && count > 0) {
#pragma unroll 4
    for (; k + kEach <= depth; k += step) {
      const ElementVector x = *reinterpret_cast<const ElementVector*>(row + k);
#pragma unroll
      for (int c = 0; c < kColumns; ++c) {
        const ElementVector y = *reinterpret_cast<const ElementVector*>(
            from + (c < count ? c : 0) * column_stride + k);
#pragma unroll
        for (int e = 0; e < kEach; ++e)
          sums[c] = fma_sum(static_cast<Acc>(from_memory(x.at[e])), static_cast<Acc>(from_memory(y.at[e])), sums[c]);
      }
    }
  }
  if (count > 0) {
    for (; k < depth; k += step) {
      for (int e = 0; e < kEach && k + e < depth; ++e) {
        const Acc x = static_cast<Acc>(from_memory(row[k + e]));
#pragma unroll
        for (int c = 0; c < kColumns; ++c) {
          const long long at = (c < count ? c : 0) * column_stride + k + e;
          sums[c] = fma_sum(x, static_cast<Acc>(from_memory(from[at])), sums[c]);
        }
      }
    }
  }
#pragma unroll
  for (int c = 0; c < kColumns; ++c) {
#pragma unroll
    for (int distance = 16; distance > 0; distance /= 2)
      sums[c] += __shfl_xor_sync(0xffffffffu, sums[c], distance);
    if (lane == 0) partial[warp][c] = sums[c];
  }
  __syncthreads();
  for (int c = static_cast<int>(threadIdx.x); c < kBlockColumns; c += kWarps * 32) {
    if (column0 + c >= n) break;
    Acc sum = 0;
#pragma unroll
    for (int i = 0; i < kAlong; ++i) sum += partial[c / kColumns * kAlong + i][c % kColumns];
    finish_one(0, column0 + c, sum);
  }
}
