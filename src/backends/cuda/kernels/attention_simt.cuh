// Attention in f32 on the ordinary units, in one pass over the keys.
//
// A block of 256 threads takes 32 rows of queries, and keys and values in steps of 32 through one
// place in shared memory, one after the other. Eight threads share a row: its largest score, the sum
// of exp(score - largest), and every eighth column of the sum of these times the values. The rest is
// as in attention_mma.cuh.

constexpr int kTileI = 32, kKeys = 32;
constexpr int kWide = (kHeadDim > kValueDim ? kHeadDim : kValueDim) + 1;
constexpr int kPitchS = kKeys + 1;
constexpr int kEach = (kValueDim + 7) / 8;

__device__ __forceinline__ float minus_infinity() { return __int_as_float(0xff800000); }

template <typename Query, typename T, typename Adjust, typename Target>
__device__ __forceinline__ void attend_rows(const Query& query_row, long long query_stride,
                                            const T* key_data, long long key_row_stride,
                                            long long key_stride, const T* value_data,
                                            long long value_row_stride, long long value_stride,
                                            long long row0, long long keys, const Adjust& adjust,
                                            long long out_stride, const Target& target) {
  extern __shared__ __align__(128) unsigned char shared[];
  float* const queries = reinterpret_cast<float*>(shared);
  float* const step = queries + kTileI * kWide;
  float* const scores = step + kKeys * kWide;
  const int thread = static_cast<int>(threadIdx.x);
  const int row = thread / 8, part = thread % 8;
  for (int c = thread; c < kTileI * kHeadDim; c += 256) {
    const T* const from = query_row(row0 + c / kHeadDim);
    queries[c / kHeadDim * kWide + c % kHeadDim] =
        from == nullptr ? 0.0f : from_memory(from[c % kHeadDim * query_stride]);
  }
  float largest = minus_infinity(), total = 0, mean[kEach] = {};
  for (long long key0 = 0; key0 < keys; key0 += kKeys) {
    const int count = keys - key0 < kKeys ? static_cast<int>(keys - key0) : kKeys;
    for (int c = thread; c < kKeys * kHeadDim; c += 256) {
      const int key = c / kHeadDim, d = c % kHeadDim;
      step[key * kWide + d] =
          key < count ? from_memory(key_data[(key0 + key) * key_row_stride + d * key_stride]) : 0.0f;
    }
    __syncthreads();
    // Four keys of a row for each of its threads, far apart.
    float own[kKeys / 8] = {};
    for (int d = 0; d < kHeadDim; ++d) {
      const float q = queries[row * kWide + d];
#pragma unroll
      for (int i = 0; i < kKeys / 8; ++i)
        own[i] = fmaf(q, step[(part + i * 8) * kWide + d], own[i]);
    }
    float next = largest;
#pragma unroll
    for (int i = 0; i < kKeys / 8; ++i) {
      const int key = part + i * 8;
      own[i] = key < count ? adjust(row0 + row, key0 + key, own[i] * kScale) : minus_infinity();
      next = fmaxf(next, own[i]);
    }
#pragma unroll
    for (int distance = 4; distance > 0; distance /= 2)
      next = fmaxf(next, __shfl_xor_sync(0xffffffffu, next, distance));
    const float base = next == minus_infinity() ? 0.0f : next;
    const float scale = expf(largest - base);
    largest = next;
    total *= scale;
#pragma unroll
    for (int i = 0; i < kKeys / 8; ++i) {
      own[i] = expf(own[i] - base);
      total += own[i];
      scores[row * kPitchS + part + i * 8] = own[i];
    }
    __syncthreads();
    for (int c = thread; c < kKeys * kValueDim; c += 256) {
      const int key = c / kValueDim, e = c % kValueDim;
      step[key * kWide + e] =
          key < count ? from_memory(value_data[(key0 + key) * value_row_stride + e * value_stride])
                      : 0.0f;
    }
    __syncthreads();
#pragma unroll
    for (int i = 0; i < kEach; ++i) mean[i] *= scale;
    for (int j = 0; j < kKeys; ++j) {
      const float weight = scores[row * kPitchS + j];
#pragma unroll
      for (int i = 0; i < kEach; ++i) {
        if (part + i * 8 < kValueDim)
          mean[i] = fmaf(weight, step[j * kWide + part + i * 8], mean[i]);
      }
    }
    __syncthreads();
  }
#pragma unroll
  for (int distance = 4; distance > 0; distance /= 2)
    total += __shfl_xor_sync(0xffffffffu, total, distance);
  auto* const to = target(row0 + row);
  if (to == nullptr) return;
#pragma unroll
  for (int i = 0; i < kEach; ++i) {
    if (part + i * 8 < kValueDim)
      to[(part + i * 8) * out_stride] = !kNanRows && total == 0.0f ? 0.0f : mean[i] / total;
  }
}
