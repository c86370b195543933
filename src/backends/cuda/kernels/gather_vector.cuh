// From fragments of tensor cores to vectors of eight neighbours, which lanes exchange: no way by shared memory.

// Two of four lanes that hold a row exchange halves: a lane keeps what it wants of its own.
template <typename Sum>
__device__ __forceinline__ void exchange(Sum& first, Sum& second, int distance, bool upper) {
  const Sum got = __shfl_xor_sync(0xffffffffu, upper ? first : second, distance);
  first = upper ? got : first;
  second = upper ? second : got;
}

// Of four vectors of eight columns each of four lanes holds pairs, those of its number; afterwards it
// holds the vector of its number.
template <typename Sum>
__device__ __forceinline__ void gather_vector(Sum (&pairs)[kVector]) {
  const bool odd = threadIdx.x % 2 != 0, upper = threadIdx.x / 2 % 2 != 0;
#pragma unroll
  for (int i = 0; i < kVector; ++i) {
    if (i % 4 < 2) exchange(pairs[i], pairs[i + 2], 1, odd);
  }
#pragma unroll
  for (int i = 0; i < 4; ++i) exchange(pairs[i], pairs[i + 4], 2, upper);
}
