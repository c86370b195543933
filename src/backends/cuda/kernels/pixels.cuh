// The left operand of a convolution as a product: a row for each pixel of the result, and along k the
// elements of the input that its filters cover, ordered as the filters are: ky, kx, channel. The
// matrix exists nowhere; its elements are gathered from the channels-last input, zero outside.
//
// Constants of the convolution are in front: kChannels of a pixel, kGroupChannels of them a filter
// sees, kFilterWidth, strides and dilations.

struct Image {
  int height, width;                      // of the input
  long long rows, columns;                // of the result
  long long pad_top, pad_left;
  long long pixels;                       // of the result, all images
  int first_channel;
};

// Where the filters of a pixel begin.
struct Corner {
  long long offset;  // of the first channel, in elements; outside of the input if y or x is
  int y, x;          // may be negative; y is far outside for pixels that there are not
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
  const long long y = row * kStrideH - image.pad_top, x = column * kStrideW - image.pad_left;
  const long long line_of_image = number * image.height + y;
  return {(line_of_image * image.width + x) * kChannels + image.first_channel, static_cast<int>(y),
          static_cast<int>(x)};
}

// Offset of the element k of a corner, or -1 outside of the image.
__device__ __forceinline__ long long pixel_offset(const Image& image, const Corner& corner, int k) {
  const int tap = k / kGroupChannels, channel = k % kGroupChannels;
  const int down = tap / kFilterWidth * kDilationH, across = tap % kFilterWidth * kDilationW;
  const int y = corner.y + down, x = corner.x + across;
  if (y < 0 || y >= image.height || x < 0 || x >= image.width) return -1;
  return corner.offset + static_cast<long long>(down * image.width + across) * kChannels + channel;
}
