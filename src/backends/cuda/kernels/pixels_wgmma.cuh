// What tile_wgmma.cuh multiplies for a convolution: a row of A is a pixel of the result, one of B a
// filter. Along k lie the taps of the filters, ky and kx, and for each of them the channels, in
// kChannelSteps steps of kTileK; behind the last channel the copy engine brings zeros for both. The
// map of the images knows where the filters of a row of pixels begin, and what the image, row and
// column after them are: a tile is any run of pixels.
//
// Constants of the convolution are in front: kChannelSteps, kFilterWidth, strides and dilations.

struct PixelBoxes {
  const TensorMap& images;   // channel, x, y, image
  const TensorMap& filters;  // channel, tap, filter
  int rows, columns;         // of the result
  int pad_top, pad_left;

  struct Tile {
    PixelPlace place;
    int filter;
  };
  __device__ __forceinline__ Tile tile(long long row0, long long column0) const {
    const unsigned pixel = static_cast<unsigned>(row0);
    const unsigned line = pixel / static_cast<unsigned>(columns);
    const int x = static_cast<int>(pixel % static_cast<unsigned>(columns));
    const int y = static_cast<int>(line % static_cast<unsigned>(rows));
    return {{x * kStrideW - pad_left, y * kStrideH - pad_top,
             static_cast<int>(line / static_cast<unsigned>(rows))},
            static_cast<int>(column0)};
  }
  __device__ __forceinline__ void prefetch() const {
    prefetch_map(images);
    prefetch_map(filters);
  }
  __device__ __forceinline__ void load_left(unsigned to, const Tile& tile, int step,
                                            const Barrier& full) const {
    const int tap = step / kChannelSteps, channel = step % kChannelSteps * kTileK;
    load_pixels(to, images, channel, tile.place, tap % kFilterWidth * kDilationW,
                tap / kFilterWidth * kDilationH, full);
  }
  __device__ __forceinline__ void load_right(unsigned to, const Tile& tile, int step,
                                             const Barrier& full) const {
    load_box(to, filters, step % kChannelSteps * kTileK, step / kChannelSteps, tile.filter, full);
  }
};
