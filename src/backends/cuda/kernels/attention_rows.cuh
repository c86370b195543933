// What kernels of attention on tensor cores share: rows of queries, keys and values, how they come to
// shared memory, and numbers of the softmax.

// Rows of keys or values: element (row, column) at data[row * row_stride + column * stride].
struct Rows {
  const bits16* data;
  long long rows, row_stride, stride;
  bool aligned;
};
__device__ __forceinline__ Rows make_rows(const void* data, long long rows, long long row_stride,
                                          long long stride) {
  const bool aligned =
      stride == 1 && ((reinterpret_cast<unsigned long long>(data) | (2 * row_stride)) & 15) == 0;
  return {static_cast<const bits16*>(data), rows, row_stride, stride, aligned};
}

// Eight elements of a row from `column` on; those from `Columns` on are zeros, and all if !exists.
template <int Columns>
__device__ __forceinline__ void load_chunk(bits16* to, const bits16* row, long long stride,
                                           int column, bool exists, bool aligned) {
  const int left = Columns - column;
  const int count = !exists || left < 0 ? 0 : left > 8 ? 8 : left;
  if (aligned) {
    copy_async(shared_address(to), count > 0 ? row + column : row, 2 * count);
    return;
  }
  unsigned packed[4];
#pragma unroll
  for (int i = 0; i < 8; i += 2) {
    const unsigned low = i < count ? row[(column + i) * stride] : 0;
    const unsigned high = i + 1 < count ? row[(column + i + 1) * stride] : 0;
    packed[i / 2] = low | high << 16;
  }
  *reinterpret_cast<uint4*>(to) = make_uint4(packed[0], packed[1], packed[2], packed[3]);
}

__device__ __forceinline__ float exp2_of(float x) {
  float result;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(result) : "f"(x));
  return result;
}
__device__ __forceinline__ float minus_infinity() { return __int_as_float(0xff800000); }

__device__ __forceinline__ float quotient(float sum, float total) {
  return !kNanRows && total == 0.0f ? 0.0f : sum / total;
}
