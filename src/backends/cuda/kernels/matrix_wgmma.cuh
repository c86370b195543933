// What tile_wgmma.cuh multiplies for a product of two matrices: boxes of both maps, rows along k. With a
// second right operand, its rows follow those of the first in each stage.

struct MatrixBoxes {
  const TensorMap& a;
  const TensorMap& b;
  const TensorMap& pair;  // b, where there is none

  struct Tile {
    int row, column;
  };
  __device__ __forceinline__ Tile tile(long long row0, long long column0) const {
    return {static_cast<int>(row0), static_cast<int>(column0)};
  }
  __device__ __forceinline__ void prefetch() const {
    prefetch_map(a);
    prefetch_map(b);
    if constexpr (kSums == 2) prefetch_map(pair);
  }
  __device__ __forceinline__ void load_left(unsigned to, const Tile& tile, int step,
                                            const Barrier& full) const {
    load_box(to, a, step * kTileK, tile.row, full);
  }
  __device__ __forceinline__ void load_right(unsigned to, const Tile& tile, int step,
                                             const Barrier& full) const {
    load_box(to, b, step * kTileK, tile.column, full);
    if constexpr (kSums == 2)
      load_box(to + kResultN * kTileK * kElementBytes, pair, step * kTileK, tile.column, full);
  }
};
