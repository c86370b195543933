// Convolutions of few channels, such as the first one of a network, on tensor cores (mma.sync).
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
constexpr int kFilterPitch = 2 * kSteps + 1;  // in chunks; odd: eight filters in different banks
constexpr int kPatchHeight = (kTileY - 1) * kStrideH + (kFilterHeight - 1) * kDilationH + 1;
constexpr int kPatchWidth = (kTileX - 1) * kStrideW + kRowChunks * 8 / kPixel;
constexpr int kSeenWidth = (kTileX - 1) * kStrideW + kFilterWidth;
constexpr int kPatchPitch = kPatchWidth * kPixel * 2;  // in bytes
constexpr int kPatchBytes = kPatchHeight * kPatchPitch;
constexpr int kFilterBytes = kTileN * kFilterPitch * 16;
constexpr int kChunkColumns = 32;  // of the result, that a warp stores at a time
constexpr int kOwnPitch = kChunkColumns + 4;
static_assert(kStrideW * kPixel % 8 == 0, "windows begin at multiples of 16 bytes");
static_assert(kTileN % kChunkColumns == 0, "whole chunks");

struct Images {
  const bits16* data;
  const bits16* filters;  // rows of kChunks chunks
  int height, width;      // of the input
  int rows, columns;      // of the result
  int pad_top, pad_left;
};

struct WindowPlace {
  int x, y, image;
  __device__ __forceinline__ WindowPlace(const Images& images, unsigned tile) {
    const unsigned across = static_cast<unsigned>(images.columns + kTileX - 1) / kTileX;
    const unsigned down = static_cast<unsigned>(images.rows + kTileY - 1) / kTileY;
    x = static_cast<int>(tile % across) * kTileX;
    y = static_cast<int>(tile / across % down) * kTileY;
    image = static_cast<int>(tile / across / down);
  }
};

__device__ __forceinline__ void load_filters(const Images& images, unsigned to, int filter0, int n) {
  for (int i = static_cast<int>(threadIdx.x); i < kTileN * 2 * kSteps; i += kThreads) {
    const int filter = i / (2 * kSteps), chunk = i % (2 * kSteps);
    const bool exists = filter0 + filter < n && chunk < kChunks;
    const long long offset = static_cast<long long>(filter0 + filter) * kChunks + chunk;
    copy_async(to + 16 * (filter * kFilterPitch + chunk), images.filters + (exists ? offset * 8 : 0),
               exists ? 16 : 0);
  }
  commit_copies();
}

// What a tile sees of its image, zeros outside of it.
__device__ __forceinline__ void load_patch(const Images& images, const WindowPlace& place,
                                           unsigned char* to) {
  constexpr int kPixels = kPatchHeight * kPatchWidth;
  const int y0 = place.y * kStrideH - images.pad_top, x0 = place.x * kStrideW - images.pad_left;
  const bits16* const image =
      images.data + static_cast<long long>(place.image) * images.height * images.width * kChannels;
  // Places are the same for every tile, and would be kept in registers that sums need.
  int first = static_cast<int>(threadIdx.x);
  asm volatile("" : "+r"(first));
#pragma unroll 6
  for (int i = first; i < kPixels; i += kThreads) {
    const int down = i / kPatchWidth, across = i % kPatchWidth;
    const int y = y0 + down, x = x0 + across;
    const bool inside = y >= 0 && y < images.height && x >= 0 && x < images.width &&
                        (kSeenWidth == kPatchWidth || across < kSeenWidth);
    const bits16* const from =
        image + (inside ? (static_cast<long long>(y) * images.width + x) * kChannels : 0);
    unsigned packed[kPixel / 2];
#pragma unroll
    for (int c = 0; c < kPixel; c += 2) {
      const unsigned low = inside && c < kChannels ? from[c] : 0;
      const unsigned high = inside && c + 1 < kChannels ? from[c + 1] : 0;
      packed[c / 2] = low | high << 16;
    }
    if constexpr (kPixel == 4) {
      reinterpret_cast<uint2*>(to)[i] = make_uint2(packed[0], packed[1]);
    } else {
      reinterpret_cast<uint4*>(to)[i] = make_uint4(packed[0], packed[1], packed[2], packed[3]);
    }
  }
}

using WindowSums = float[kWarpRows][kTileN / 8][4];

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

__device__ __forceinline__ void multiply_window(WindowSums& sums, unsigned patch, unsigned filters) {
  const int lane = static_cast<int>(threadIdx.x) % 32, warp = static_cast<int>(threadIdx.x) / 32;
  const unsigned pixel = patch + warp * kWarpRows * kStrideH * kPatchPitch +
                         (lane & 15) * (kStrideW * kPixel * 2);
  const unsigned filter =
      filters + 16 * (((lane >> 4 & 1) * 8 + (lane & 7)) * kFilterPitch + (lane >> 3 & 1));
#pragma unroll
  for (int step = 0; step < kSteps; ++step) {
    const int offset = lane < 16 || 2 * step + 1 >= kChunks ? chunk_offset(2 * step)
                                                            : chunk_offset(2 * step + 1);
    unsigned a[kWarpRows][4];
#pragma unroll
    for (int m = 0; m < kWarpRows; ++m) {
      load_matrices(a[m], pixel + m * kStrideH * kPatchPitch + offset);
      mask_fragment(a[m], step);
    }
#pragma unroll
    for (int n = 0; n < kTileN / 16; ++n) {
      unsigned b[4];
      load_matrices(b, filter + 16 * (n * 16 * kFilterPitch + 2 * step));
#pragma unroll
      for (int m = 0; m < kWarpRows; ++m) {
        multiply(sums[m][2 * n], a[m], b[0], b[1]);
        multiply(sums[m][2 * n + 1], a[m], b[2], b[3]);
      }
    }
  }
}

// The sums of a warp, by way of shared memory of its own, where they become vectors of neighbours.
template <typename R>
__device__ __forceinline__ void write_window(const R& result, const WindowSums& sums,
                                             const Images& images, const WindowPlace& place,
                                             int filter0, float* own) {
  constexpr int kAcross = kChunkColumns / 8, kDown = 32 / kAcross;
  const int lane = static_cast<int>(threadIdx.x) % 32, warp = static_cast<int>(threadIdx.x) / 32;
  const int across = lane % kAcross * 8;
  constexpr int kColumnChunks = kTileN / kChunkColumns;
  // Not unrolled, since the epilogue would be there as often.
#pragma unroll 1
  for (int chunk = 0; chunk < kWarpRows * kColumnChunks; ++chunk) {
    const int first = chunk % kColumnChunks * kChunkColumns;
    const int y = place.y + warp * kWarpRows + chunk / kColumnChunks;
    const long long row0 =
        (static_cast<long long>(place.image) * images.rows + y) * images.columns + place.x;
    const int pixels = y < images.rows ? images.columns - place.x : 0;
    __syncwarp();
#pragma unroll
    for (int c = 0; c < kWarpRows * kColumnChunks; ++c) {
      if (c != chunk) continue;
#pragma unroll
      for (int i = 0; i < kChunkColumns / 4; ++i) {
        const float* const from =
            sums[c / kColumnChunks][c % kColumnChunks * (kChunkColumns / 8) + i / 2] + i % 2 * 2;
        *reinterpret_cast<float2*>(own + (i % 2 * 8 + lane / 4) * kOwnPitch + i / 2 * 8 +
                                   lane % 4 * 2) = make_float2(from[0], from[1]);
      }
    }
    __syncwarp();
    const int column = filter0 + first + across;
    const int left = static_cast<int>(result.n) - column;
    typename R::Columns same;
    if (left >= 8) result.fetch_columns(column, same);
#pragma unroll
    for (int line = lane / kAcross; line < kTileX; line += kDown) {
      if (line >= pixels || left <= 0) continue;
      const float* const from = own + line * kOwnPitch + across;
      if (left >= 8) {
        typename R::Loaded loaded;
        result.fetch(row0 + line, column, loaded);
        result.finish(row0 + line, column, VectorSums{{gather_sums(from)}}, loaded, same);
      } else {
#pragma unroll 1
        for (int e = 0; e < left; ++e) result.finish_one(row0 + line, column + e, ColumnSums{{from[e]}});
      }
    }
  }
}

// `tiles` of each kTileN filters; blocks of the same filters share them.
template <typename R>
__device__ __forceinline__ void convolve_windows(const Images& images, unsigned tiles,
                                                 const R& result) {
  extern __shared__ __align__(128) unsigned char shared[];
  unsigned char* const patches = shared + kFilterBytes;
  float* const own = reinterpret_cast<float*>(patches + 2 * kPatchBytes) +
                     threadIdx.x / 32 * (16 * kOwnPitch);
  const unsigned parts = static_cast<unsigned>((result.n + kTileN - 1) / kTileN);
  const int filter0 = static_cast<int>(blockIdx.x % parts) * kTileN;
  const unsigned step = gridDim.x / parts;
  unsigned tile = blockIdx.x / parts;
  load_filters(images, shared_address(shared), filter0, static_cast<int>(result.n));
  load_patch(images, WindowPlace(images, tile), patches);
  wait_copies<0>();
  for (int buffer = 0; tile < tiles; tile += step, buffer ^= 1) {
    __syncthreads();
    if (tile + step < tiles)
      load_patch(images, WindowPlace(images, tile + step), patches + (buffer ^ 1) * kPatchBytes);
    WindowSums sums = {};
    multiply_window(sums, shared_address(patches) + buffer * kPatchBytes, shared_address(shared));
    write_window(result, sums, images, WindowPlace(images, tile), filter0, own);
  }
}
