// Products in f32 or f64 on the ordinary units: every step an explicit fused multiply-add.
//
// A block computes kTileM x kTileN sums with 16 x 16 threads, kEachM x kEachN of them a thread, in
// pieces of four neighbours that are far apart: the pieces that a warp reads of a line of shared
// memory are then neighbours. Steps of kTileK go through two buffers: while one is multiplied, the
// elements of the next are on their way from memory in registers. Elements are converted to Acc on
// the way to shared memory.
//
// An operand gives the element of a row at k, zero outside; what is known of a row is prepared once.
// AAlongK and BAlongK say in which order threads ask for elements, so that neighbours ask for
// neighbours in memory.

constexpr int kEachM = kTileM / 16, kEachN = kTileN / 16;
constexpr int kPieceM = kEachM < 4 ? kEachM : 4, kPieceN = kEachN < 4 ? kEachN : 4;
constexpr int kPitchA = kTileM + 4, kPitchB = kTileN + 4;

// A matrix of `rows` x `depth` (along k); element (r, k) at data[r * row_stride + k * k_stride].
template <typename T>
struct Matrix {
  const T* data;
  long long rows, depth, row_stride, k_stride;
  using Row = const T*;  // null: outside
  __device__ __forceinline__ Row row(long long row) const {
    return row < rows ? data + row * row_stride : nullptr;
  }
  __device__ __forceinline__ Acc element(Row row, long long k) const {
    if (row == nullptr || k >= depth) return Acc(0);
    return static_cast<Acc>(from_memory(row[k * k_stride]));
  }
};

// Two right operands that are alike: of each kTileN rows the first half are of one, the others of the
// other.
template <typename T>
struct MatrixPair {
  Matrix<T> first, second;
  using Row = const T*;
  __device__ __forceinline__ Row row(long long row) const {
    const long long at = row % kTileN, same = row / kTileN * kResultN;
    return at < kResultN ? first.row(same + at) : second.row(same + at - kResultN);
  }
  __device__ __forceinline__ Acc element(Row row, long long k) const {
    return first.element(row, k);
  }
};

// The elements of a step that a thread brings from memory.
template <typename Source, int Rows, bool AlongK>
struct Staged {
  static constexpr int kEach = Rows * kTileK / 256;
  const Source& source;
  typename Source::Row rows[kEach];
  Acc value[kEach];

  __device__ __forceinline__ Staged(const Source& source, long long row0) : source(source) {
#pragma unroll
    for (int i = 0; i < kEach; ++i) rows[i] = source.row(row0 + row(i));
  }
  static __device__ __forceinline__ int row(int i) {
    const int place = static_cast<int>(threadIdx.x) + i * 256;
    return AlongK ? place / kTileK : place % Rows;
  }
  static __device__ __forceinline__ int k(int i) {
    const int place = static_cast<int>(threadIdx.x) + i * 256;
    return AlongK ? place % kTileK : place / Rows;
  }
  __device__ __forceinline__ void load(long long k0) {
#pragma unroll
    for (int i = 0; i < kEach; ++i) value[i] = source.element(rows[i], k0 + k(i));
  }
  template <int Pitch>
  __device__ __forceinline__ void store(Acc* to) const {
#pragma unroll
    for (int i = 0; i < kEach; ++i) to[k(i) * Pitch + row(i)] = value[i];
  }
};


template <int Each, int Piece>
__device__ __forceinline__ int spread(int place, int i) {
  return i / Piece * (16 * Piece) + place * Piece + i % Piece;
}

template <bool AAlongK, bool BAlongK, typename A, typename B, typename R>
__device__ __forceinline__ void multiply_tile(const A& a, const B& b, long long depth,
                                              long long row0, long long column0, const R& result) {
  extern __shared__ __align__(128) unsigned char shared[];
  Acc* const buffers = reinterpret_cast<Acc*>(shared);
  constexpr int kBuffer = kTileK * (kPitchA + kPitchB);
  const int steps = static_cast<int>((depth + kTileK - 1) / kTileK);
  const int part = (steps + kCluster - 1) / kCluster;
  const int first = part * static_cast<int>(cluster_rank());
  const int count = steps - first < part ? steps - first : part;
  const int down = static_cast<int>(threadIdx.x) / 16, across = static_cast<int>(threadIdx.x) % 16;
  Acc sums[kEachM][kEachN] = {};
  Staged<A, kTileM, AAlongK> next_a(a, row0);
  Staged<B, kTileN, BAlongK> next_b(b, column0 * kSums);

  const auto fetch = [&](int step) {
    const long long k0 = static_cast<long long>(first + step) * kTileK;
    next_a.load(k0);
    next_b.load(k0);
  };
  if (count > 0) fetch(0);
  for (int step = 0; step < count; ++step) {
    Acc* const tile_a = buffers + step % 2 * kBuffer;
    Acc* const tile_b = tile_a + kTileK * kPitchA;
    next_a.template store<kPitchA>(tile_a);
    next_b.template store<kPitchB>(tile_b);
    __syncthreads();
    if (step + 1 < count) fetch(step + 1);
#pragma unroll
    for (int k = 0; k < kTileK; ++k) {
      Acc left[kEachM], right[kEachN];
#pragma unroll
      for (int i = 0; i < kEachM; ++i)
        left[i] = tile_a[k * kPitchA + spread<kEachM, kPieceM>(down, i)];
#pragma unroll
      for (int i = 0; i < kEachN; ++i)
        right[i] = tile_b[k * kPitchB + spread<kEachN, kPieceN>(across, i)];
#pragma unroll
      for (int i = 0; i < kEachM; ++i) {
#pragma unroll
        for (int j = 0; j < kEachN; ++j) sums[i][j] = fma_sum(left[i], right[j], sums[i][j]);
      }
    }
  }
  __syncthreads();
#pragma unroll
  for (int i = 0; i < kEachM; ++i) {
#pragma unroll
    for (int j = 0; j < kEachN; ++j) {
      buffers[spread<kEachM, kPieceM>(down, i) * kResultPitch +
              spread<kEachN, kPieceN>(across, j)] = sums[i][j];
    }
  }
  __syncthreads();
  write_result<256>(result, row0, column0, buffers);
}
