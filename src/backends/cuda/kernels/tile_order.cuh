// Which tile a block of the grid computes. The grid is one row of blocks; blocks that run at the
// same time should share rows of A and columns of B in the second-level cache, so tiles go in
// bands: kBand tiles down, then one to the right, and so on. A tile has kResultN columns of the result.

struct TilePlace {
  long long batch, row0, column0;

  // Of one batch.
  static __device__ __forceinline__ unsigned count(long long m, long long n) {
    return static_cast<unsigned>((m + kTileM - 1) / kTileM * ((n + kResultN - 1) / kResultN));
  }

  __device__ __forceinline__ TilePlace(long long m, long long n, unsigned block) {
    constexpr unsigned kBand = 8;
    const unsigned down = static_cast<unsigned>((m + kTileM - 1) / kTileM);
    const unsigned across = static_cast<unsigned>((n + kResultN - 1) / kResultN);
    const unsigned tile = block % (down * across);
    batch = block / (down * across);
    const unsigned band = tile / (kBand * across);
    const unsigned height = down - band * kBand < kBand ? down - band * kBand : kBand;
    const unsigned within = tile - band * kBand * across;
    row0 = static_cast<long long>(band * kBand + within % height) * kTileM;
    column0 = static_cast<long long>(within / height) * kResultN;
  }
};
