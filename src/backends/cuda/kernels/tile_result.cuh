// From the sums of a tile to elements of the result: the last part of every product kernel.
//
// The sums of a block lie in shared memory, kTileM rows of kResultPitch sums. Each thread takes
// kVector neighbouring columns of a row at a time: it gathers the sums (those of all blocks of the
// cluster, in the order of their ranks, where k is split over a cluster: the result is the same in
// every run) and hands them to the plan's epilogue, which is written for each kernel. What the
// epilogue loads is fetched for several vectors before the first of them is stored: a compiler may
// not move loads over stores, and the latency of memory would be paid for each.
//
// A product may have two right operands (kSums = 2): the kTileN sums of a row of the tile are then
// those of kResultN columns with the first, and after them those of the same columns with the second.
//
// kVector is in front: 8, or 2 where a lane finishes what it has of a fragment (window_pool.cuh).

constexpr int kResultPitch = kTileN + 4;  // rows start in different banks

// Neighbouring elements in registers.
template <typename T>
struct alignas(kVector == 8 ? 16 : sizeof(T) * kVector) Elements {
  T at[kVector];
};

template <int Bytes>
struct PieceType {
  using Type = uint4;
};
template <>
struct PieceType<8> {
  using Type = uint2;
};
template <>
struct PieceType<4> {
  using Type = unsigned;
};
template <>
struct PieceType<2> {
  using Type = unsigned short;
};

// A vector is moved in pieces of at most 16 bytes, if it begins at a multiple of that.
template <typename T>
struct Pieces {
  static constexpr int kBytes = static_cast<int>(sizeof(T)) * kVector;
  static constexpr int kPiece = kBytes < 16 ? kBytes : 16;
  using Type = typename PieceType<kPiece>::Type;
};

template <typename T>
__device__ __forceinline__ void fetch_elements(const T* from, Elements<T>& to) {
  using Piece = typename Pieces<T>::Type;
  if ((reinterpret_cast<unsigned long long>(from) & (sizeof(Piece) - 1)) == 0) {
#pragma unroll
    for (int i = 0; i < Pieces<T>::kBytes / static_cast<int>(sizeof(Piece)); ++i)
      reinterpret_cast<Piece*>(to.at)[i] = reinterpret_cast<const Piece*>(from)[i];
  } else {
#pragma unroll
    for (int v = 0; v < kVector; ++v) to.at[v] = from[v];
  }
}

// Values as elements, two to a register where they have 16 bits.
template <typename T, typename R>
__device__ __forceinline__ void to_elements(const R (&from)[kVector], Elements<T>& to) {
#pragma unroll
  for (int v = 0; v < kVector; ++v) to.at[v] = to_memory<T>(from[v]);
}
// Two numbers as elements of a register, the first in the lower half.
template <typename T>
__device__ __forceinline__ unsigned packed(float first, float second);
template <>
__device__ __forceinline__ unsigned packed<half_t>(float first, float second) {
  unsigned pair;
  asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(second), "f"(first));
  return pair;
}
template <>
__device__ __forceinline__ unsigned packed<bfloat_t>(float first, float second) {
  unsigned pair;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(second), "f"(first));
  return pair;
}
template <typename T>
__device__ __forceinline__ void pack_elements(const float (&from)[kVector], Elements<T>& to) {
#pragma unroll
  for (int v = 0; v < kVector; v += 2)
    reinterpret_cast<unsigned*>(to.at)[v / 2] = packed<T>(from[v], from[v + 1]);
}
__device__ __forceinline__ void to_elements(const float (&from)[kVector], Elements<half_t>& to) {
  pack_elements(from, to);
}
__device__ __forceinline__ void to_elements(const float (&from)[kVector], Elements<bfloat_t>& to) {
  pack_elements(from, to);
}

__device__ __forceinline__ void to_elements(const float (&from)[kVector], Elements<float8_t>& to) {
#pragma unroll
  for (int v = 0; v < kVector; v += 2) {
#if __CUDA_ARCH__ >= 890
    asm("cvt.rn.satfinite.e4m3x2.f32 %0, %1, %2;"
        : "=h"(reinterpret_cast<unsigned short*>(to.at)[v / 2])
        : "f"(from[v + 1]), "f"(from[v]));
#else
    to.at[v] = to_memory<float8_t>(from[v]);
    to.at[v + 1] = to_memory<float8_t>(from[v + 1]);
#endif
  }
}

template <typename T>
__device__ __forceinline__ void store_elements(T* to, const Elements<T>& elements) {
  using Piece = typename Pieces<T>::Type;
  if ((reinterpret_cast<unsigned long long>(to) & (sizeof(Piece) - 1)) == 0) {
#pragma unroll
    for (int i = 0; i < Pieces<T>::kBytes / static_cast<int>(sizeof(Piece)); ++i)
      reinterpret_cast<Piece*>(to)[i] = reinterpret_cast<const Piece*>(elements.at)[i];
  } else {
#pragma unroll
    for (int v = 0; v < kVector; ++v) to[v] = elements.at[v];
  }
}
template <typename T, typename R>
__device__ __forceinline__ void store_elements(T* to, const R (&values)[kVector]) {
  Elements<T> elements;
  to_elements(values, elements);
  store_elements(to, elements);
}

// Brings the 32 bytes around an element to the first-level cache and nobody waits for it: four bytes
// of shared memory at `to` take what comes along.
template <typename T>
__device__ __forceinline__ void touch_element(const T* element, unsigned to) {
  const unsigned long long address = reinterpret_cast<unsigned long long>(element);
  const unsigned bytes = static_cast<unsigned>(address & 3) + sizeof(T);
  asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;" ::"r"(to), "l"(address & ~3ull),
               "r"(bytes < 4 ? bytes : 4)
               : "memory");
}

struct Sums {
  Acc at[kVector];
};
// Of two neighbours.
struct alignas(2 * sizeof(Acc)) SumPair {
  Acc at[2];
};
// Of a vector of columns, and of one column.
struct VectorSums {
  Sums of[kSums];
};
struct ColumnSums {
  Acc of[kSums];
};

// What there is of the result, and what to do with sums. finish(row, column, sums, loaded, columns):
// kVector columns, with what `fetch` brought for them and `fetch_columns`, which is the same for all
// rows; finish_one(row, column, sums): one. `touch` brings an element of what is the same for all rows
// to the first-level cache, by way of shared memory.
template <typename LoadedType, typename ColumnsType, typename Touch, typename Fetch,
          typename FetchColumns, typename Finish, typename FinishOne>
struct Result {
  using Loaded = LoadedType;
  using Columns = ColumnsType;
  long long m, n;
  const Touch& touch;
  const Fetch& fetch;
  const FetchColumns& fetch_columns;
  const Finish& finish;
  const FinishOne& finish_one;
};

template <typename Loaded, typename Columns, typename Touch, typename Fetch, typename FetchColumns,
          typename Finish, typename FinishOne>
__device__ __forceinline__
    Result<Loaded, Columns, Touch, Fetch, FetchColumns, Finish, FinishOne>
    make_result(long long m, long long n, const Touch& touch, const Fetch& fetch,
                const FetchColumns& fetch_columns, const Finish& finish,
                const FinishOne& finish_one) {
  return {m, n, touch, fetch, fetch_columns, finish, finish_one};
}

template <int Count = kVector>
__device__ __forceinline__ Sums gather_sums(const Acc* from) {
  constexpr int kPieces = Count * static_cast<int>(sizeof(Acc)) / 16;
  constexpr int kEach = Count / kPieces;
  Sums sums = {};
  if constexpr (kCluster == 1) {
    union {
      uint4 piece[kPieces];
      Acc value[kVector];
    } u;
#pragma unroll
    for (int i = 0; i < kPieces; ++i) u.piece[i] = reinterpret_cast<const uint4*>(from)[i];
#pragma unroll
    for (int v = 0; v < kVector; ++v) sums.at[v] = u.value[v];
  } else {
#pragma unroll
    for (unsigned rank = 0; rank < kCluster; ++rank) {
      const unsigned address = in_block(shared_address(from), rank);
#pragma unroll
      for (int i = 0; i < kPieces; ++i) {
        Acc piece[kEach];
        load_remote(address + i * 16, piece);
#pragma unroll
        for (int v = 0; v < kEach; ++v) sums.at[i * kEach + v] += piece[v];
      }
    }
  }
  return sums;
}

// Rows and columns of the tile begin at `row0` and `column0`; all threads of the block call it, after
// a barrier that made the sums visible to the block.
template <int Threads, typename R>
__device__ __forceinline__ void write_result(const R& result, long long row0, long long column0,
                                             const Acc* tile) {
  constexpr int kAcross = kResultN / kVector;
  constexpr int kRows = kTileM / kCluster;  // that this block finishes
  constexpr int kStep = Threads / kAcross;  // rows that all threads take at a time
  constexpr int kEach = (kRows + kStep - 1) / kStep;
  constexpr int kBatch = kEach < 4 ? kEach : 4;
  if constexpr (kCluster > 1) cluster_barrier();
  const bool takes_part = static_cast<int>(threadIdx.x) < kStep * kAcross;
  const int across = static_cast<int>(threadIdx.x) % kAcross * kVector;
  const long long column = column0 + across;
  const long long left = takes_part ? result.n - column : 0;
  typename R::Columns columns;
  if (left >= kVector) result.fetch_columns(column, columns);
  const int first = kRows * static_cast<int>(cluster_rank());
  const long long rows = result.m - row0;
  for (int down = static_cast<int>(threadIdx.x) / kAcross; down < kRows; down += kBatch * kStep) {
    typename R::Loaded loaded[kBatch];
#pragma unroll
    for (int i = 0; i < kBatch; ++i) {
      const int row = first + down + i * kStep;
      if (left >= kVector && down + i * kStep < kRows && row < rows)
        result.fetch(row0 + row, column, loaded[i]);
    }
#pragma unroll
    for (int i = 0; i < kBatch; ++i) {
      const int row = first + down + i * kStep;
      if (left <= 0 || down + i * kStep >= kRows || row >= rows) continue;
      VectorSums sums;
#pragma unroll
      for (int s = 0; s < kSums; ++s)
        sums.of[s] = gather_sums(tile + row * kResultPitch + s * kResultN + across);
      if (left >= kVector) {
        result.finish(row0 + row, column, sums, loaded[i], columns);
      } else {
#pragma unroll
        for (int v = 0; v < kVector - 1; ++v) {
          ColumnSums one;
#pragma unroll
          for (int s = 0; s < kSums; ++s) one.of[s] = sums.of[s].at[v];
          if (v < left) result.finish_one(row0 + row, column + v, one);
        }
      }
    }
  }
  if constexpr (kCluster > 1) cluster_barrier();  // the others still read this block's sums
}
