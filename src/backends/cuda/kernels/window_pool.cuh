// The largest results of windows.cuh in windows of kPoolHeight x kPoolWidth of them, kPoolStrideH and kPoolStrideW
// apart: a max pooling of which the results are never stored.
//
// A tile has the results for kPooledY x kPooledX windows, those at its edges are computed by neighbours too. They
// are kept in shared memory, pixels of kTileN elements, as the two neighbours that a lane has of a fragment
// (kVector); -inf where the convolution has no result. The block takes the largest from there, 16 bytes at a time.
// These are exchanged by the number of the pixel, so that what a warp writes at a time lies in different banks.

constexpr int kPooledY = (kTileY - kPoolHeight) / kPoolStrideH + 1;
constexpr int kPooledX = (kTileX - kPoolWidth) / kPoolStrideW + 1;
constexpr int kPixelPieces = kTileN / 8;  // of 16 bytes
constexpr int kKeptBytes = kTileY * kTileX * kTileN * 2;
constexpr unsigned kLowest = kBf16 ? 0xff80ff80u : 0xfc00fc00u;  // two times -inf
static_assert(kVector == 2, "what a lane has of a fragment");

// Of the first window of a tile.
__device__ __forceinline__ WindowPlace pooled_place(const Pooled& pooled, unsigned tile) {
  const unsigned across = static_cast<unsigned>(pooled.columns + kPooledX - 1) / kPooledX;
  const unsigned down = static_cast<unsigned>(pooled.rows + kPooledY - 1) / kPooledY;
  return {static_cast<int>(tile % across) * kPooledX,
          static_cast<int>(tile / across % down) * kPooledY, static_cast<int>(tile / across / down)};
}
__device__ __forceinline__ WindowPlace window_place(const Images& images, unsigned tile) {
  const WindowPlace place = pooled_place(images.pooled, tile);
  return {place.x * kPoolStrideW - kPoolLeft, place.y * kPoolStrideH - kPoolTop, place.image};
}

// Where a piece of a pixel is, in bytes.
__device__ __forceinline__ int kept_place(int pixel, int piece) {
  return (pixel * kPixelPieces + (piece ^ pixel % kPixelPieces)) * 16;
}

// Of two elements each; NaN if either is.
__device__ __forceinline__ void take_larger(unsigned& best, unsigned other) {
  if constexpr (kBf16) {
    asm("max.NaN.bf16x2 %0, %0, %1;" : "+r"(best) : "r"(other));
  } else {
    asm("max.NaN.f16x2 %0, %0, %1;" : "+r"(best) : "r"(other));
  }
}

__device__ __forceinline__ void pool_windows(const Images& images, unsigned tile, int filter0, int n,
                                             const unsigned char* kept) {
  const Pooled& pooled = images.pooled;
  const WindowPlace first = pooled_place(pooled, tile);
  for (int i = static_cast<int>(threadIdx.x); i < kPooledY * kPooledX * kPixelPieces; i += kThreads) {
    const int piece = i % kPixelPieces, window = i / kPixelPieces;
    const int down = window / kPooledX, across = window % kPooledX;
    const int y = first.y + down, x = first.x + across, column = filter0 + piece * 8;
    if (y >= pooled.rows || x >= pooled.columns || column >= n) continue;
    uint4 best = make_uint4(kLowest, kLowest, kLowest, kLowest);
#pragma unroll
    for (int kx = 0; kx < kPoolWidth; ++kx) {
      const unsigned char* const from =
          kept + down * kPoolStrideH * (kTileX * kTileN * 2) +
          kept_place(across * kPoolStrideW + kx, piece);
#pragma unroll
      for (int ky = 0; ky < kPoolHeight; ++ky) {
        const uint4 other = *reinterpret_cast<const uint4*>(from + ky * (kTileX * kTileN * 2));
        take_larger(best.x, other.x);
        take_larger(best.y, other.y);
        take_larger(best.z, other.z);
        take_larger(best.w, other.w);
      }
    }
    const long long row = (static_cast<long long>(first.image) * pooled.rows + y) * pooled.columns + x;
    bits16* const to = pooled.data + row * n + column;
    if ((reinterpret_cast<unsigned long long>(to) & 15) == 0) {
      *reinterpret_cast<uint4*>(to) = best;
    } else {
      const unsigned words[4] = {best.x, best.y, best.z, best.w};
#pragma unroll
      for (int e = 0; e < 8; ++e) to[e] = static_cast<bits16>(words[e / 2] >> e % 2 * 16);
    }
  }
}

template <typename R>
__device__ __forceinline__ void write_window(const R& result, const WindowSums& sums,
                                             const Images& images, unsigned tile, int filter0,
                                             unsigned char* kept) {
  const WindowPlace place = window_place(images, tile);
  const int lane = static_cast<int>(threadIdx.x) % 32, warp = static_cast<int>(threadIdx.x) / 32;
  // What all pixels share is fetched a piece ahead and no earlier, since sums need the registers.
  int column = filter0 + lane % 4 * 2;
  typename R::Columns next;
  result.fetch_columns(column, next);
#pragma unroll
  for (int piece = 0; piece < kPixelPieces; ++piece) {
    const typename R::Columns same = next;
    asm volatile("" : "+r"(column)::"memory");
    if (column >= static_cast<int>(result.n)) break;  // of the whole piece
    if (piece + 1 < kPixelPieces && column + 8 < static_cast<int>(result.n))
      result.fetch_columns(column + 8, next);
#pragma unroll
    for (int m = 0; m < kWarpRows; ++m) {
      const int line = warp * kWarpRows + m, y = place.y + line;
#pragma unroll
      for (int v = 0; v < 2; ++v) {
        const int pixel = lane / 4 + v * 8, x = place.x + pixel;
        const bool exists = y >= 0 && y < images.rows && x >= 0 && x < images.columns;
        // What does not exist is computed at a place that does, and left out.
        const long long row =
            exists ? (static_cast<long long>(place.image) * images.rows + y) * images.columns + x : 0;
        typename R::Loaded loaded;
        result.fetch(row, column, loaded);
        VectorSums own;
        own.of[0].at[0] = sums[m][piece * 4 + v * 2];
        own.of[0].at[1] = sums[m][piece * 4 + v * 2 + 1];
        unsigned value;
        result.finish(row, column, own, loaded, same, &value);
        *reinterpret_cast<unsigned*>(kept + line * (kTileX * kTileN * 2) + kept_place(pixel, piece) +
                                     lane % 4 * 4) = exists ? value : kLowest;
      }
    }
    column += 8;
  }
  __syncthreads();
  pool_windows(images, tile, filter0, static_cast<int>(result.n), kept);
}
