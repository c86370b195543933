// An operand of pixels.cuh for tile_simt.cuh.

template <typename T>
struct Pixels {
  const T* data;
  const Image& image;
  int depth;
  using Row = Corner;
  __device__ __forceinline__ Row row(long long pixel) const { return corner_of(image, pixel); }
  __device__ __forceinline__ Acc element(const Row& corner, long long k) const {
    const long long offset =
        k < depth ? pixel_offset(image, corner, static_cast<int>(k)) : -1;
    return offset < 0 ? Acc(0) : static_cast<Acc>(from_memory(data[offset]));
  }
};
