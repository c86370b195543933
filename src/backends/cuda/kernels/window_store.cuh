// The results of windows.cuh as they are.

constexpr int kKeptBytes = 0;
constexpr int kChunkColumns = 32;  // of the result, of which a lane has a vector in each of two rows
constexpr int kColumnChunks = kTileN / kChunkColumns;
static_assert(kTileN % kChunkColumns == 0, "whole chunks");

// Calls each(pixel of the row, column of the tile, sums) for the vectors that a lane has of a row of
// pixels: all of them are written out, since sums are registers.
template <typename Each>
__device__ __forceinline__ void for_each_vector(const float (&sums)[kTileN / 2], const Each& each) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
#pragma unroll
  for (int chunk = 0; chunk < kColumnChunks; ++chunk) {
#pragma unroll
    for (int v = 0; v < 2; ++v) {
      VectorSums own;
#pragma unroll
      for (int i = 0; i < kVector; ++i)
        own.of[0].at[i] = sums[chunk * (kChunkColumns / 2) + i / 2 * 4 + v * 2 + i % 2];
      gather_vector(own.of[0].at);
      each(lane / 4 + v * 8, chunk * kChunkColumns + lane % 4 * 8, own);
    }
  }
}

__device__ __forceinline__ WindowPlace window_place(const Images& images, unsigned tile) {
  const unsigned across = static_cast<unsigned>(images.columns + kTileX - 1) / kTileX;
  const unsigned down = static_cast<unsigned>(images.rows + kTileY - 1) / kTileY;
  return {static_cast<int>(tile % across) * kTileX, static_cast<int>(tile / across % down) * kTileY,
          static_cast<int>(tile / across / down)};
}

template <typename R>
__device__ __forceinline__ void write_window(const R& result, const WindowSums& sums,
                                             const Images& images, unsigned tile, int filter0,
                                             unsigned char*) {
  const WindowPlace place = window_place(images, tile);
#pragma unroll
  for (int m = 0; m < kWarpRows; ++m) {
    const int y = place.y + static_cast<int>(threadIdx.x) / 32 * kWarpRows + m;
    const long long row0 =
        (static_cast<long long>(place.image) * images.rows + y) * images.columns + place.x;
    const int pixels = y < images.rows ? images.columns - place.x : 0;
    for_each_vector(sums[m], [&](int pixel, int across, const VectorSums& own) {
      const int column = filter0 + across;
      const int left = static_cast<int>(result.n) - column;
      if (pixel >= pixels || left <= 0) return;
      if (left >= kVector) {
        typename R::Columns same;
        typename R::Loaded loaded;
        result.fetch_columns(column, same);
        result.fetch(row0 + pixel, column, loaded);
        result.finish(row0 + pixel, column, own, loaded, same);
      } else {
#pragma unroll
        for (int e = 0; e < kVector - 1; ++e) {
          if (e < left) result.finish_one(row0 + pixel, column + e, ColumnSums{{own.of[0].at[e]}});
        }
      }
    });
  }
}
