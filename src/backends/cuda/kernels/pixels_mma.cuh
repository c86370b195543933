// A loader of pixels.cuh for tile_mma.cuh: vectors of eight channels at a time where groups are
// multiples of eight channels, so that none spans two pixels, and element by element elsewhere.

struct LoadPixels {
  static constexpr int kAcrossChunks = kTileK / 8;
  static constexpr int kChunks = kTileM * kAcrossChunks;
  static constexpr int kEach = kChunks / kThreads;
  static_assert(kChunks % kThreads == 0, "every thread has as many chunks");

  const bits16* data;
  const Image& image;
  Corner corners[kEach];
  int k0;
  bool aligned;

  __device__ __forceinline__ LoadPixels(const void* input, const Image& image, long long row0,
                                        long long k0)
      : data(static_cast<const bits16*>(input)), image(image), k0(static_cast<int>(k0)) {
    aligned = kGroupChannels % 8 == 0 && (reinterpret_cast<unsigned long long>(input) & 15) == 0;
#pragma unroll
    for (int i = 0; i < kEach; ++i)
      corners[i] = corner_of(image, row0 + (static_cast<int>(threadIdx.x) + i * kThreads) / kAcrossChunks);
  }

  __device__ __forceinline__ bits16 element(const Corner& corner, int k, int k_end) const {
    const long long offset = k < k_end ? pixel_offset(image, corner, k) : -1;
    return offset < 0 ? bits16(0) : data[offset];
  }

  __device__ __forceinline__ void load(unsigned char* to, int left) {
    const int end = k0 + left;
#pragma unroll
    for (int i = 0; i < kEach; ++i) {
      const int line = static_cast<int>(threadIdx.x) / kAcrossChunks + i * (kThreads / kAcrossChunks);
      const int across = static_cast<int>(threadIdx.x) % kAcrossChunks;
      const int k = k0 + across * 8;
      unsigned char* chunk = to + 16 * (line * kAcrossChunks + swizzled<kAcrossChunks>(line, across));
      if (aligned) {
        const long long offset = k < end ? pixel_offset(image, corners[i], k) : -1;
        copy_async(shared_address(chunk), data + (offset < 0 ? 0 : offset), offset < 0 ? 0 : 16);
      } else {
        unsigned packed[4];
#pragma unroll
        for (int e = 0; e < 8; e += 2) {
          const unsigned low = element(corners[i], k + e, end);
          const unsigned high = element(corners[i], k + e + 1, end);
          packed[e / 2] = low | high << 16;
        }
        *reinterpret_cast<uint4*>(chunk) = make_uint4(packed[0], packed[1], packed[2], packed[3]);
      }
    }
    k0 += kTileK;
  }
};
