// What the results of tile_wgmma.cuh have in common where blocks stay, however they are stored
// (group_vectors.cuh, group_pairs.cuh).

constexpr int kGroupRows = 64 * kRowBlocks;  // of a consumer group
using GroupSums = Acc[kRowBlocks][kTileN / 2];

// How a warp goes through its rows of a tile: 32 columns of 16 rows at a time, of which a lane has a
// vector of neighbours in each of two rows.
constexpr int kChunkColumns = 32;
constexpr int kChunkVectors = 2;
constexpr int kColumnChunks = kResultN / kChunkColumns;
constexpr int kChunks = kRowBlocks * kColumnChunks;
static_assert(kOneTile || kResultN % kChunkColumns == 0, "whole chunks");

// What the epilogue loads. The ring keeps the way from the second-level cache busy, and a load of a
// consumer waits behind all that it asked for: thousands of cycles. So loads are asked for before the
// tile is multiplied. What each row has of its own waits in registers (kHoldLoads, where these are
// enough), or else is fetched a chunk ahead; what all rows share is brought to the first-level cache.
template <typename R>
struct EarlyLoads {
  static constexpr int kHeld = kHoldLoads ? kChunks : 1;
  typename R::Loaded loaded[kHeld][kChunkVectors];

  __device__ __forceinline__ void fetch(const R& result, int row0, int column0, int chunk,
                                        int held) {
    const int lane = static_cast<int>(threadIdx.x) % 32;
    const int column = column0 + chunk % kColumnChunks * kChunkColumns + lane % 4 * 8;
    const int row = row0 + chunk / kColumnChunks * 64 + lane / 4;
#pragma unroll
    for (int v = 0; v < kChunkVectors; ++v) {
      if (row + v * 8 < static_cast<int>(result.m) && column + 8 <= static_cast<int>(result.n))
        result.fetch(row + v * 8, column, loaded[held][v]);
    }
  }
  __device__ __forceinline__ void begin(const R& result, int row0, int column0, float* own) {
    const int lane = static_cast<int>(threadIdx.x) % 32;
    if (lane * 8 < kResultN && column0 + lane * 8 < result.n)
      result.touch(column0 + lane * 8, shared_address(own + lane));
    if constexpr (kHoldLoads) {
#pragma unroll
      for (int chunk = 0; chunk < kChunks; ++chunk) fetch(result, row0, column0, chunk, chunk);
    }
  }
};
