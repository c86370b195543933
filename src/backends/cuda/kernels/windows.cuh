// Convolutions of few channels, such as the first one of a network, on tensor cores: what the ways to multiply
// (window_mma.cuh, window_wgmma.cuh) and to store (window_store.cuh, window_pool.cuh) share.
//
// A block computes kTileY rows of 16 pixels of the result for kTileN filters, one such tile after the
// other. The part of the input that a tile sees lies in shared memory as pixels of kPixel channels, 4
// or 8, of which those that the input has not are zeros. Neighbouring pixels of a row are neighbours
// along k too, so that the rows of A never need to be gathered: 16 bytes of a filter's row (a chunk)
// for 8 pixels of the result are what ldmatrix reads at 8 addresses, kStrideW pixels apart, a multiple
// of 16 bytes. So each element is read once from memory, by whatever alignment it has.
//
// Along k lie the rows of a filter, each filled up to whole chunks. There the filters are zeros, but
// the input is not: what it has there is left out in registers, since infinity times zero is not zero.
// The filters of a block stay in shared memory; the next tile's pixels are fetched while one is
// multiplied.
//
// Constants of the convolution are in front: kChannels, kPixel, kFilterHeight, kFilterWidth, strides,
// kDilationH.

constexpr int kTileX = 16, kTileY = kWarps * kWarpRows;
constexpr int kThreads = kWarps * 32;
constexpr int kRowChunks = (kFilterWidth * kPixel + 7) / 8;  // of a row of a filter
constexpr int kChunks = kFilterHeight * kRowChunks;
constexpr int kSteps = (kChunks + 1) / 2;
constexpr int kPatchHeight = (kTileY - 1) * kStrideH + (kFilterHeight - 1) * kDilationH + 1;
constexpr int kPatchWidth = (kTileX - 1) * kStrideW + kRowChunks * 8 / kPixel;
constexpr int kSeenWidth = (kTileX - 1) * kStrideW + kFilterWidth;
constexpr int kPatchPitch = kPatchWidth * kPixel * 2;  // in bytes
constexpr int kPatchBytes = kPatchHeight * kPatchPitch;
static_assert(kStrideW * kPixel % 8 == 0, "windows begin at multiples of 16 bytes");

// What window_pool.cuh stores.
struct Pooled {
  bits16* data;
  int rows, columns;
};

struct Images {
  const bits16* data;
  const bits16* filters;  // rows of kChunks chunks
  int height, width;      // of the input
  int rows, columns;      // of the result
  int pad_top, pad_left;
  Pooled pooled;
};

// The first pixel of the result that a tile has; may lie outside of it.
struct WindowPlace {
  int x, y, image;
};

// What a tile sees of its image, zeros outside of it. A thread has the pixels of a column, every kPatchStep-th row:
// where they are is known from one of them. As many as registers hold are asked for before the first is stored.
constexpr int kPatchStep = kThreads / kPatchWidth;
constexpr int kPatchRounds = (kPatchHeight + kPatchStep - 1) / kPatchStep;
constexpr int kPatchBatch = 24 / kChannels;
static_assert(kPatchStep > 0, "a row of a patch is no longer than a block has threads");

__device__ __forceinline__ void load_patch(const Images& images, const WindowPlace& place,
                                           unsigned char* to) {
  const int across = static_cast<int>(threadIdx.x) % kPatchWidth;
  const int down = static_cast<int>(threadIdx.x) / kPatchWidth;
  if (down >= kPatchStep) return;
  const int y0 = place.y * kStrideH - images.pad_top + down;
  const int x = place.x * kStrideW - images.pad_left + across;
  const bool seen = x >= 0 && x < images.width && (kSeenWidth == kPatchWidth || across < kSeenWidth);
  const int height = seen ? images.height : 0;
  const long long row = static_cast<long long>(images.width) * kChannels;
  const bits16* const from =
      images.data + (static_cast<long long>(place.image) * images.height + y0) * row + x * kChannels;
#pragma unroll
  for (int first = 0; first < kPatchRounds; first += kPatchBatch) {
    bits16 pixels[kPatchBatch][kChannels];
#pragma unroll
    for (int i = 0; i < kPatchBatch; ++i) {
      const int line = (first + i) * kPatchStep;
      const bool inside = first + i < kPatchRounds && y0 + line >= 0 && y0 + line < height;
#pragma unroll
      for (int c = 0; c < kChannels; ++c) pixels[i][c] = inside ? from[line * row + c] : bits16(0);
    }
#pragma unroll
    for (int i = 0; i < kPatchBatch; ++i) {
      const int line = (first + i) * kPatchStep;
      unsigned packed[kPixel / 2] = {};
#pragma unroll
      for (int c = 0; c < kChannels; ++c)
        packed[c / 2] |= static_cast<unsigned>(pixels[i][c]) << c % 2 * 16;
      if (down + line >= kPatchHeight) continue;
      const int at = (down + line) * kPatchWidth + across;
      if constexpr (kPixel == 4) {
        reinterpret_cast<uint2*>(to)[at] = make_uint2(packed[0], packed[1]);
      } else {
        reinterpret_cast<uint4*>(to)[at] = make_uint4(packed[0], packed[1], packed[2], packed[3]);
      }
    }
  }
}

// Of a warp: kWarpRows rows of 16 pixels, a fragment of 8 filters after the other.
using WindowSums = float[kWarpRows][kTileN / 2];

// Where a chunk is, from the first of the pixel.
__device__ __forceinline__ constexpr int chunk_offset(int chunk) {
  return chunk / kRowChunks * kDilationH * kPatchPitch + chunk % kRowChunks * 16;
}

// Leaves out what no filter sees of the halves of a fragment, chunks 2 * step and the one after.
__device__ __forceinline__ void mask_fragment(unsigned (&a)[4], int step) {
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int chunk = 2 * step + half;
    const bool cut = kFilterWidth * kPixel % 8 != 0 && chunk % kRowChunks == kRowChunks - 1;
    if (chunk >= kChunks || (cut && threadIdx.x % 4 >= 2)) a[2 * half] = a[2 * half + 1] = 0;
  }
}

// The pixels of a warp's row `m`, 16 of them, times what a step multiplies them by.
__device__ __forceinline__ void load_row(unsigned (&a)[4], unsigned patch, int m, int step) {
  const int lane = static_cast<int>(threadIdx.x) % 32, warp = static_cast<int>(threadIdx.x) / 32;
  const unsigned pixel = patch + warp * kWarpRows * kStrideH * kPatchPitch +
                         (lane & 15) * (kStrideW * kPixel * 2);
  const int offset = lane < 16 || 2 * step + 1 >= kChunks ? chunk_offset(2 * step)
                                                          : chunk_offset(2 * step + 1);
  load_matrices(a, pixel + m * kStrideH * kPatchPitch + offset);
  mask_fragment(a, step);
}
