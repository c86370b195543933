// The products of windows.cuh by mma.sync: filters are rows of chunks, an odd number of them, so that eight
// filters lie in different banks.

constexpr int kFilterPitch = 2 * kSteps + 1;  // in chunks
constexpr int kFilterBytes = kTileN * kFilterPitch * 16;

__device__ __forceinline__ void load_filters(const Images& images, unsigned to, int filter0, int n) {
  for (int i = static_cast<int>(threadIdx.x); i < kTileN * 2 * kSteps; i += kThreads) {
    const int filter = i / (2 * kSteps), chunk = i % (2 * kSteps);
    const bool exists = filter0 + filter < n && chunk < kChunks;
    const long long offset = static_cast<long long>(filter0 + filter) * kChunks + chunk;
    copy_async(to + 16 * (filter * kFilterPitch + chunk), images.filters + (exists ? offset * 8 : 0),
               exists ? 16 : 0);
  }
  commit_copies();
}

__device__ __forceinline__ void see_filters() {}

__device__ __forceinline__ void multiply_window(WindowSums& sums, unsigned patch, unsigned filters) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const unsigned filter =
      filters + 16 * (((lane >> 4 & 1) * 8 + (lane & 7)) * kFilterPitch + (lane >> 3 & 1));
#pragma unroll
  for (int step = 0; step < kSteps; ++step) {
    unsigned a[kWarpRows][4];
#pragma unroll
    for (int m = 0; m < kWarpRows; ++m) load_row(a[m], patch, m, step);
#pragma unroll
    for (int n = 0; n < kTileN / 8; n += 2) {
      unsigned b[4];
      load_matrices(b, filter + 16 * (n * 8 * kFilterPitch + 2 * step));
#pragma unroll
      for (int m = 0; m < kWarpRows; ++m) {
        multiply(reinterpret_cast<float(&)[4]>(sums[m][4 * n]), a[m], b[0], b[1]);
        multiply(reinterpret_cast<float(&)[4]>(sums[m][4 * n + 4]), a[m], b[2], b[3]);
      }
    }
  }
}
