// The left operand of a convolution as a product: a row for each pixel of the result, and along k the
// elements of the input that its filters cover, ordered as the filters are: ky, kx, channel. The
// matrix exists nowhere; its elements are gathered from the channels-last input, zero outside.
//
// Constants of the convolution are in front: kChannels of a pixel, kGroupChannels of them a filter
// sees, kFilterWidth, strides and dilations.

struct Image {
  long long height, width;                // of the input
  long long rows, columns;                // of the result
  long long pad_top, pad_left;
  long long pixels;                       // of the result, all images
  int first_channel;
};

// Where the filters of a pixel begin.
struct Corner {
  long long image;  // offset of its image and of the first channel, in elements
  int y, x;         // may be negative; y is far outside for pixels that there are not
};

__device__ __forceinline__ Corner corner_of(const Image& image, long long pixel) {
  if (pixel >= image.pixels) return {0, -(1 << 30), 0};
  long long row, column, number;
  if (image.pixels < (1ll << 31)) {
    const unsigned narrow = static_cast<unsigned>(pixel), columns = static_cast<unsigned>(image.columns);
    const unsigned line = narrow / columns, rows = static_cast<unsigned>(image.rows);
    column = narrow % columns;
    row = line % rows;
    number = line / rows;
  } else {
    column = pixel % image.columns;
    row = pixel / image.columns % image.rows;
    number = pixel / image.columns / image.rows;
  }
  return {number * image.height * image.width * kChannels + image.first_channel,
          static_cast<int>(row * kStrideH - image.pad_top),
          static_cast<int>(column * kStrideW - image.pad_left)};
}

// Offset of the element k of a corner, or -1 outside of the image.
__device__ __forceinline__ long long pixel_offset(const Image& image, const Corner& corner, int k) {
  const int tap = k / kGroupChannels, channel = k % kGroupChannels;
  const int y = corner.y + tap / kFilterWidth * kDilationH;
  const int x = corner.x + tap % kFilterWidth * kDilationW;
  if (y < 0 || y >= image.height || x < 0 || x >= image.width) return -1;
  return corner.image + (y * image.width + x) * kChannels + channel;
}
