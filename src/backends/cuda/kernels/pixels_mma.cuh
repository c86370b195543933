// A loader of pixels.cuh for tile_mma.cuh: vectors of 16 bytes at a time where groups are multiples of
// as many channels, so that none spans two pixels, and element by element elsewhere.

struct PixelOperand {
  const Bits* data;
  const Image& image;
  long long depth;
  // Of f32; zero outside.
  __device__ __forceinline__ float element(long long row, long long k) const {
    const long long offset =
        k < depth ? pixel_offset(image, corner_of(image, row), static_cast<int>(k)) : -1;
    return offset < 0 ? 0.0f : __uint_as_float(data[offset]);
  }
};

struct LoadPixels {
  static constexpr int kAcrossChunks = kTileK / kChunk;
  static constexpr int kChunks = kTileM * kAcrossChunks;
  static constexpr int kEach = kChunks / kThreads;
  static_assert(kChunks % kThreads == 0, "every thread has as many chunks");

  const Bits* data;
  const Image& image;
  Corner corners[kEach];
  int k0;
  bool aligned;

  __device__ __forceinline__ LoadPixels(const PixelOperand& operand, long long row0, long long k0)
      : data(operand.data), image(operand.image), k0(static_cast<int>(k0)) {
    aligned = kGroupChannels % kChunk == 0 && (reinterpret_cast<unsigned long long>(data) & 15) == 0;
#pragma unroll
    for (int i = 0; i < kEach; ++i)
      corners[i] = corner_of(image, row0 + (static_cast<int>(threadIdx.x) + i * kThreads) / kAcrossChunks);
  }

  __device__ __forceinline__ Bits element(const Corner& corner, int k, int k_end) const {
    const long long offset = k < k_end ? pixel_offset(image, corner, k) : -1;
    return offset < 0 ? Bits(0) : data[offset];
  }

  __device__ __forceinline__ void load(unsigned char* to, int left) {
    const int end = k0 + left;
#pragma unroll
    for (int i = 0; i < kEach; ++i) {
      const int line = static_cast<int>(threadIdx.x) / kAcrossChunks + i * (kThreads / kAcrossChunks);
      const int across = static_cast<int>(threadIdx.x) % kAcrossChunks;
      const int k = k0 + across * kChunk;
      unsigned char* chunk = to + 16 * (line * kAcrossChunks + swizzled<kAcrossChunks>(line, across));
      if (aligned) {
        const long long offset = k < end ? pixel_offset(image, corners[i], k) : -1;
        copy_async(shared_address(chunk), data + (offset < 0 ? 0 : offset), offset < 0 ? 0 : 16);
      } else {
        *reinterpret_cast<uint4*>(chunk) =
            gathered_chunk([&](int e) { return element(corners[i], k + e, end); });
      }
    }
    k0 += kTileK;
  }
};
