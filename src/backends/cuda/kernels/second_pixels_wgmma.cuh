// What tile_wgmma.cuh multiplies for a convolution with a second sum: behind the steps of the first
// (pixels_wgmma.cuh), of which there are kFirstSteps, are those of the channels of one pixel of another
// image for each pixel of the result.
//
// Constants of the second image are in front: kSecondStrideH, kSecondStrideW.

struct TwoPixelBoxes {
  const PixelBoxes& first;
  const TensorMap& images;
  const TensorMap& filters;

  struct Tile {
    PixelBoxes::Tile first;
    PixelPlace place;
  };
  __device__ __forceinline__ Tile tile(long long row0, long long column0) const {
    const PixelBoxes::Tile tile = first.tile(row0, column0);
    return {tile,
            {(tile.place.x + first.pad_left) / kStrideW * kSecondStrideW,
             (tile.place.y + first.pad_top) / kStrideH * kSecondStrideH, tile.place.image}};
  }
  __device__ __forceinline__ void prefetch() const {
    first.prefetch();
    prefetch_map(images);
    prefetch_map(filters);
  }
  __device__ __forceinline__ void load_left(unsigned to, const Tile& tile, int step,
                                            const Barrier& full) const {
    if (step < kFirstSteps)
      first.load_left(to, tile.first, step, full);
    else
      load_pixels(to, images, (step - kFirstSteps) * kTileK, tile.place, 0, 0, full);
  }
  __device__ __forceinline__ void load_right(unsigned to, const Tile& tile, int step,
                                             const Barrier& full) const {
    if (step < kFirstSteps)
      first.load_right(to, tile.first, step, full);
    else
      load_box(to, filters, (step - kFirstSteps) * kTileK, 0, tile.first.filter, full);
  }
};
