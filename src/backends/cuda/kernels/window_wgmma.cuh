// The products of windows.cuh by groups of four warps (wgmma): pixels come out of registers, so that what no filter
// sees can be left out of them, filters out of shared memory. There a chunk of eight filters is a matrix of 128
// bytes, without a swizzle: all filters of a chunk one after another, then those of the next.

constexpr int kFilterBytes = kTileN * 2 * kSteps * 16;

__device__ __forceinline__ void load_filters(const Images& images, unsigned to, int filter0, int n) {
  for (int i = static_cast<int>(threadIdx.x); i < kTileN * 2 * kSteps; i += kThreads) {
    const int filter = i / (2 * kSteps), chunk = i % (2 * kSteps);
    const bool exists = filter0 + filter < n && chunk < kChunks;
    const long long offset = static_cast<long long>(filter0 + filter) * kChunks + chunk;
    copy_async(to + 16 * (chunk * kTileN + filter), images.filters + (exists ? offset * 8 : 0),
               exists ? 16 : 0);
  }
  commit_copies();
}
__device__ __forceinline__ void see_filters() { see_copies(); }

// A step has two chunks; one product is under way while the pixels of the next are read.
__device__ __forceinline__ void multiply_window(WindowSums& sums, unsigned patch, unsigned filters) {
  unsigned a[2][kWarpRows][4];
#pragma unroll
  for (int step = 0; step < kSteps; ++step) {
#pragma unroll
    for (int m = 0; m < kWarpRows; ++m) load_row(a[step % 2][m], patch, m, step);
    const unsigned long long b =
        plain_descriptor(filters + step * 2 * kTileN * 16, kTileN * 16, 128);
    begin_products();
#pragma unroll
    for (int m = 0; m < kWarpRows; ++m) {
      const unsigned(&row)[4] = a[step % 2][m];
      multiply_group(sums[m], row[0], row[1], row[2], row[3], b, step > 0);
    }
    commit_products();
    wait_products<1>();
  }
  wait_products<0>();
}
