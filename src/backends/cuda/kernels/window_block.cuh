// The block of windows.cuh: `tiles` of each kTileN filters; blocks of the same filters share them.

template <typename R>
__device__ __forceinline__ void convolve_windows(const Images& images, unsigned tiles,
                                                 const R& result) {
  extern __shared__ __align__(128) unsigned char shared[];
  unsigned char* const patches = shared + kFilterBytes;
  unsigned char* const kept = patches + (2 * kPatchBytes + 127) / 128 * 128;
  const unsigned parts = static_cast<unsigned>((result.n + kTileN - 1) / kTileN);
  const int filter0 = static_cast<int>(blockIdx.x % parts) * kTileN;
  const unsigned step = gridDim.x / parts;
  unsigned tile = blockIdx.x / parts;
  load_filters(images, shared_address(shared), filter0, static_cast<int>(result.n));
  load_patch(images, window_place(images, tile), patches);
  wait_copies<0>();
  see_filters();
  for (int buffer = 0; tile < tiles; tile += step, buffer ^= 1) {
    __syncthreads();
    if (tile + step < tiles)
      load_patch(images, window_place(images, tile + step), patches + (buffer ^ 1) * kPatchBytes);
    WindowSums sums = {};
    multiply_window(sums, shared_address(patches) + buffer * kPatchBytes, shared_address(shared));
    write_window(result, sums, images, tile, filter0, kept);
  }
}
