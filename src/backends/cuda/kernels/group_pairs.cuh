// Results of 16 bits of tile_wgmma.cuh, finished as they lie in fragments: a lane has pairs of neighbours. Elements, not
// sums, change places, by way of a patch of shared memory that each warp has (stmatrix): where k is 64 to 256, exchanging
// sums by shuffles took as many instructions as everything else of a kernel. Nothing is loaded that each row has of its
// own: bringing it to pairs (ldmatrix) took longer than shuffles did.
//
// A patch is 16 rows of 32 elements. Vectors of eight are swapped by row, so that those that are written or read
// together lie in different banks.

constexpr int kPatchBytes = 16 * 64;
constexpr int kPairGroups = kChunkColumns / 8;  // of which a lane has a pair each

__device__ __forceinline__ unsigned patch_vector(unsigned patch, int row, int group) {
  return patch + static_cast<unsigned>(row * 64 + ((group ^ (row >> 1)) & 3) * 16);
}

template <typename T>
struct alignas(2 * sizeof(T)) ElementPair {
  T at[2];
};
// One of each group of eight columns, of a row.
template <typename T>
using ElementPairs = ElementPair<T>[kPairGroups];

// Pairs that are the same for all rows, the first at `from`, of as many groups as there are.
template <typename T>
__device__ __forceinline__ void fetch_pairs(const T* from, int groups, ElementPairs<T>& to) {
  const auto at = [&](int i) { return from + (kWholeChunks || i < groups ? i * 8 : 0); };
  if ((reinterpret_cast<unsigned long long>(from) & (2 * sizeof(T) - 1)) == 0) {
#pragma unroll
    for (int i = 0; i < kPairGroups; ++i) to[i] = *reinterpret_cast<const ElementPair<T>*>(at(i));
  } else {
#pragma unroll
    for (int i = 0; i < kPairGroups; ++i) to[i] = {{at(i)[0], at(i)[1]}};
  }
}

// What is made of two elements in a register, rounded once.
template <typename T>
__device__ __forceinline__ unsigned add_pairs(unsigned a, unsigned b);
template <typename T>
__device__ __forceinline__ unsigned subtract_pairs(unsigned a, unsigned b);
template <typename T>
__device__ __forceinline__ unsigned multiply_pairs(unsigned a, unsigned b);
template <typename T>  // all ones in elements below zero
__device__ __forceinline__ unsigned negative_pair(unsigned a);

#define KILN_OF_PAIRS(name, type, instruction)                                        \
  template <>                                                                         \
  __device__ __forceinline__ unsigned name<type>(unsigned a, unsigned b) {            \
    unsigned result;                                                                  \
    asm(instruction " %0, %1, %2;" : "=r"(result) : "r"(a), "r"(b));                  \
    return result;                                                                    \
  }
#define KILN_PAIRS(type, suffix)                                                      \
  KILN_OF_PAIRS(add_pairs, type, "add.rn." suffix)                                    \
  KILN_OF_PAIRS(subtract_pairs, type, "sub.rn." suffix)                               \
  KILN_OF_PAIRS(multiply_pairs, type, "mul.rn." suffix)                               \
  template <>                                                                         \
  __device__ __forceinline__ unsigned negative_pair<type>(unsigned a) {               \
    unsigned result;                                                                  \
    asm("set.lt.u32." suffix " %0, %1, %2;" : "=r"(result) : "r"(a), "r"(0));         \
    return result;                                                                    \
  }
KILN_PAIRS(half_t, "f16x2")
KILN_PAIRS(bfloat_t, "bf16x2")

template <typename T>
__device__ __forceinline__ unsigned relu_pair(unsigned a) {
  return a & ~negative_pair<T>(a);
}

// Pairs of a row, to be the vector of a lane.
__device__ __forceinline__ void keep_pairs(const unsigned (&pairs)[kPairGroups], unsigned patch,
                                           int first_row) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  asm volatile("stmatrix.sync.aligned.m8n8.x4.shared.b16 [%0], {%1, %2, %3, %4};" ::"r"(
                   patch_vector(patch, lane % 8 + first_row, lane / 8)),
               "r"(pairs[0]), "r"(pairs[1]), "r"(pairs[2]), "r"(pairs[3])
               : "memory");
}
template <typename T>
__device__ __forceinline__ Elements<T> kept_vector(unsigned patch, int first_row) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  union {
    uint4 piece;
    Elements<T> elements;
  } u;
  asm volatile("ld.shared.v4.b32 {%0, %1, %2, %3}, [%4];"
               : "=r"(u.piece.x), "=r"(u.piece.y), "=r"(u.piece.z), "=r"(u.piece.w)
               : "r"(patch_vector(patch, lane / 4 + first_row, lane % 4))
               : "memory");
  return u.elements;
}

// Sums of a pair of columns.
struct PairOfSums {
  SumPair of[kSums];
};

// What there is of the result, and what to do with sums, as in tile_result.cuh, but that finish(row, column, sums, pairs of
// the columns, group) gives a pair of elements, and store(row, column, vector) stores eight.
template <typename ElementType, typename ColumnPairsType, typename Touch, typename FetchColumns,
          typename Finish, typename Store>
struct PairResult {
  using Element = ElementType;
  using ColumnPairs = ColumnPairsType;
  struct Loaded {};
  long long m, n;
  const Touch& touch;
  const FetchColumns& fetch_columns;
  const Finish& finish;
  const Store& store;
  __device__ __forceinline__ void fetch(int, int, Loaded&) const {}
};

template <typename Element, typename ColumnPairs, typename Touch, typename FetchColumns,
          typename Finish, typename Store>
__device__ __forceinline__ PairResult<Element, ColumnPairs, Touch, FetchColumns, Finish, Store>
make_pair_result(long long m, long long n, const Touch& touch, const FetchColumns& fetch_columns,
                 const Finish& finish, const Store& store) {
  return {m, n, touch, fetch_columns, finish, store};
}

// All chunks are written out, since sums are registers, which have no index.
template <typename R>
__device__ __forceinline__ void write_sums(const R& result, const GroupSums& sums,
                                           EarlyLoads<R>& /*early*/, int row0, int column0,
                                           unsigned patch) {
  using Element = typename R::Element;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int rows = static_cast<int>(result.m) - row0, columns = static_cast<int>(result.n) - column0;
  asm volatile("cp.async.wait_all;" ::: "memory");
#pragma unroll
  for (int chunk = 0; chunk < kChunks; ++chunk) {
    const auto& fragment = sums[chunk / kColumnChunks];
    const int first = chunk % kColumnChunks * (kChunkColumns / 2);
    const int place = chunk % kColumnChunks * kChunkColumns;
    const int down = chunk / kColumnChunks * 64;
    const int column = column0 + place + lane % 4 * 2, groups = (columns - place) / 8;
    if (!kWholeChunks && groups <= 0) continue;
    typename R::ColumnPairs same;
    result.fetch_columns(column, groups, same);
    unsigned pairs[kChunkVectors][kPairGroups];
#pragma unroll
    for (int v = 0; v < kChunkVectors; ++v) {
#pragma unroll
      for (int i = 0; i < kPairGroups; ++i) {
        PairOfSums own;
#pragma unroll
        for (int s = 0; s < kSums; ++s) {
          own.of[s].at[0] = fragment[s * (kResultN / 2) + first + i * 4 + v * 2];
          own.of[s].at[1] = fragment[s * (kResultN / 2) + first + i * 4 + v * 2 + 1];
        }
        // Of rows and columns that there are not too, of which nothing is stored.
        pairs[v][i] = result.finish(row0 + down + lane / 4 + v * 8, column + i * 8, own, same, i);
      }
    }
    __syncwarp();  // what was in the patch has been read
#pragma unroll
    for (int v = 0; v < kChunkVectors; ++v) keep_pairs(pairs[v], patch, v * 8);
    __syncwarp();
#pragma unroll
    for (int v = 0; v < kChunkVectors; ++v) {
      const Elements<Element> vector = kept_vector<Element>(patch, v * 8);
      const int row = down + lane / 4 + v * 8, across = place + lane % 4 * 8;
      if (row < rows && (kWholeChunks || across < columns)) result.store(row0 + row, column0 + across, vector);
    }
  }
}
