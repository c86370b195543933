// Instructions of sm_90a: boxes of tensors that the copy engine (TMA) brings to shared memory,
// barriers that count its bytes, and products of a group of four warps (wgmma), whose operands lie in
// shared memory.
//
// Operands lie there as the copy engine puts them with a swizzle of 128 bytes: rows of 64 elements,
// eight of them a unit of 1024 bytes, in which the 16-byte chunk of a row is exchanged by the row's
// number. A matrix descriptor says that of a tile: its address, and 1024 bytes from eight rows to the
// next; a slice of 16 along k is 32 bytes further, 64 rows are 8192. Rows of 32 elements, with a
// swizzle of 64 bytes, take half of all that.

struct alignas(64) TensorMap {
  unsigned char bytes[128];
};

struct Barrier {
  unsigned address;  // of 8 bytes of shared memory

  __device__ __forceinline__ void init(int arrivals) const {
    asm volatile("mbarrier.init.shared.b64 [%0], %1;" ::"r"(address), "r"(arrivals) : "memory");
  }
  __device__ __forceinline__ void arrive() const {
    asm volatile("mbarrier.arrive.shared.b64 _, [%0];" ::"r"(address) : "memory");
  }
  // Arrives, and says how many bytes are to come before the phase is over.
  __device__ __forceinline__ void expect(unsigned bytes) const {
    asm volatile("mbarrier.arrive.expect_tx.shared.b64 _, [%0], %1;" ::"r"(address), "r"(bytes)
                 : "memory");
  }
  // Arrives when the copies (cp.async) that this thread has asked for are there.
  __device__ __forceinline__ void arrive_with_copies() const {
    asm volatile("cp.async.mbarrier.arrive.noinc.shared.b64 [%0];" ::"r"(address) : "memory");
  }
  // Until the phase of this parity is over.
  __device__ __forceinline__ void wait(unsigned parity) const {
    asm volatile(
        "{\n"
        ".reg .pred done;\n"
        "again:\n"
        "mbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n"
        "@done bra over;\n"
        "bra again;\n"
        "over:\n"
        "}" ::"r"(address),
        "r"(parity)
        : "memory");
  }
};

// A box of a map of two axes, `x` along the fast one; what lies outside of the tensor is zeros.
__device__ __forceinline__ void load_box(unsigned to, const TensorMap& map, int x, int y,
                                         const Barrier& barrier) {
  asm volatile(
      "cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [%0], [%1, "
      "{%2, %3}], [%4];" ::"r"(to),
      "l"(&map), "r"(x), "r"(y), "r"(barrier.address)
      : "memory");
}
__device__ __forceinline__ void load_box(unsigned to, const TensorMap& map, int x, int y, int z,
                                         const Barrier& barrier) {
  asm volatile(
      "cp.async.bulk.tensor.3d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [%0], [%1, "
      "{%2, %3, %4}], [%5];" ::"r"(to),
      "l"(&map), "r"(x), "r"(y), "r"(z), "r"(barrier.address)
      : "memory");
}

// Where the filter of a pixel of a convolution begins: may lie outside of the image.
struct PixelPlace {
  int x, y, image;
};

// Of a map of images (im2col): some channels of as many pixels as the map says, each `across` and
// `down` from where its filter begins. The first of them is at `place`, the next ones follow in the
// row, in the next rows, in the next images.
__device__ __forceinline__ void load_pixels(unsigned to, const TensorMap& map, int channel,
                                            const PixelPlace& place, int across, int down,
                                            const Barrier& barrier) {
  asm volatile(
      "cp.async.bulk.tensor.4d.shared::cluster.global.im2col.mbarrier::complete_tx::bytes [%0], "
      "[%1, {%2, %3, %4, %5}], [%6], {%7, %8};" ::"r"(to),
      "l"(&map), "r"(channel), "r"(place.x), "r"(place.y), "r"(place.image), "r"(barrier.address),
      "h"(static_cast<unsigned short>(across)), "h"(static_cast<unsigned short>(down))
      : "memory");
}
__device__ __forceinline__ void prefetch_map(const TensorMap& map) {
  asm volatile("prefetch.tensormap [%0];" ::"l"(&map) : "memory");
}

template <int Registers>
__device__ __forceinline__ void keep_registers() {
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(Registers));
}
template <int Registers>
__device__ __forceinline__ void take_registers() {
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(Registers));
}

// Of some of the warps of a block.
__device__ __forceinline__ void sync_threads(int barrier, int threads) {
  asm volatile("bar.sync %0, %1;" ::"r"(barrier), "r"(threads) : "memory");
}
__device__ __forceinline__ void arrive_threads(int barrier, int threads) {
  asm volatile("bar.arrive %0, %1;" ::"r"(barrier), "r"(threads) : "memory");
}

// What is the same for all threads of a warp, though it comes from threadIdx: products take descriptors out of
// registers that a warp shares, and bringing a descriptor there for each product takes as long as a small one.
template <typename T>
__device__ __forceinline__ T same_in_warp(T value) {
  return __shfl_sync(0xffffffffu, value, 0);
}

// Of rows of as many bytes as the swizzle: 128 or 64. Descriptors of places further on in shared memory are as many
// units of 16 bytes larger.
template <int RowBytes = 128>
__device__ __forceinline__ unsigned long long matrix_descriptor(unsigned address) {
  static_assert(RowBytes == 128 || RowBytes == 64, "a swizzle");
  return static_cast<unsigned long long>((address & 0x3ffff) >> 4) | 1ull << 16 |
         static_cast<unsigned long long>(RowBytes / 2) << 32 | (RowBytes == 128 ? 1ull : 2ull) << 62;
}
// `units` further on: the lower half alone changes.
__device__ __forceinline__ unsigned long long further(unsigned long long descriptor, unsigned units) {
  return (descriptor & 0xffffffff00000000ull) | (static_cast<unsigned>(descriptor) + units);
}
constexpr unsigned kSliceStep = 2, kRowsStep = 512;  // of descriptors: 16 of k, 64 rows

// Without a swizzle: eight rows of 16 bytes are 128 bytes; so far to the next 16 bytes of k, and to the next eight rows.
__device__ __forceinline__ unsigned long long plain_descriptor(unsigned address, unsigned along_k,
                                                               unsigned rows) {
  return static_cast<unsigned long long>((address & 0x3ffff) >> 4) |
         static_cast<unsigned long long>(along_k >> 4) << 16 |
         static_cast<unsigned long long>(rows >> 4) << 32;
}

// Elements that are contiguous across k: `panels` bytes from 64 of them to the next 64, rows of k one
// after the other. A slice of 16 along k is 2048 bytes further.
__device__ __forceinline__ unsigned long long transposed_descriptor(unsigned address,
                                                                    unsigned panels) {
  return static_cast<unsigned long long>((address & 0x3ffff) >> 4) |
         static_cast<unsigned long long>(panels >> 4) << 16 | 64ull << 32 | 1ull << 62;
}
constexpr unsigned kTransposedSliceStep = 128;

// What was written to shared memory by stores and cp.async can be read by products after this.
__device__ __forceinline__ void see_copies() {
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}

__device__ __forceinline__ void begin_products() {
  asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
}
__device__ __forceinline__ void commit_products() {
  asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}
template <int Left>
__device__ __forceinline__ void wait_products() {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(Left) : "memory");
}
