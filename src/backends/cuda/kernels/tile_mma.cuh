// Products of f16 or bf16 on tensor cores (mma.sync, sm_80 and newer), sums in f32.
//
// A block computes kTileM x kTileN sums. Its operands come in steps of kTileK through a ring of
// kStages pieces of shared memory, filled by cp.async while earlier ones are multiplied. Warps cover
// the tile in pieces of kWarpM x kWarpN; where that takes fewer warps than the block has, the warps
// form kGroups groups that share the work of each step by its slices of 16 along k, and add their
// sums at the end. On sm_90, blocks of a cluster share k the same way, a contiguous part for each.
// Both are for results with few tiles, where one block a tile would leave the machine idle; both add
// up in a fixed order.
//
// How operands get to shared memory is the matter of two loaders, LoadA and LoadB, which this file
// has in three forms (the constants kFormA and kFormB say which):
//   kAlongK    neighbours along k are neighbours in memory: a row of the tile is a row of memory
//   kAcross    neighbours across k are: the tile is stored transposed, and ldmatrix turns it
//   kElements  neither, or rows that do not begin at multiples of 16 bytes: element by element
// The first two test at run time that addresses are multiples of 16 bytes, since tensors of callers
// can begin anywhere, and fall back to single elements. Convolutions bring a LoadA of their own
// (pixels.cuh). Nothing outside of an operand is read: chunks are cut at the last element.

constexpr int kAlongK = 0, kAcross = 1, kElements = 2;
constexpr int kWarpsM = kTileM / kWarpM, kWarpsN = kTileN / kWarpN;
constexpr int kSlices = kTileK / 16;
constexpr int kBytesA = kTileM * kTileK * 2, kBytesB = kTileN * kTileK * 2;
static_assert(kWarpsM * kWarpsN * kGroups * 32 == kThreads, "every warp has its piece");
static_assert(kSlices % kGroups == 0, "groups share the slices of a step");

// A matrix of `rows` x `depth` (along k); element (r, k) at data[r * row_stride + k * k_stride].
struct Operand {
  const bits16* data;
  long long rows, depth, row_stride, k_stride;
};

// Loads tiles of Rows x kTileK of an operand, from row `row0` on.
template <int Rows, int Form>
struct LoadMatrix {
  static constexpr int kAcrossChunks = (Form == kAcross ? Rows : kTileK) / 8;
  static constexpr int kLines = Form == kAcross ? kTileK : Rows;
  static constexpr int kChunks = kLines * kAcrossChunks;

  Operand operand;
  long long row0;
  bool aligned;

  __device__ __forceinline__ LoadMatrix(const Operand& operand, long long row0)
      : operand(operand), row0(row0) {
    const long long stride = Form == kAcross ? operand.k_stride : operand.row_stride;
    aligned = Form != kElements &&
              ((reinterpret_cast<unsigned long long>(operand.data) | (2 * stride)) & 15) == 0;
  }

  __device__ __forceinline__ void chunk(unsigned char* to, int line, int across, long long k0,
                                        long long k_end) const {
    const long long row = row0 + (Form == kAcross ? across * 8 : line);
    const long long k = k0 + (Form == kAcross ? line : across * 8);
    // How many of the eight elements there are.
    long long left = Form == kAcross ? operand.rows - row : k_end - k;
    if (Form == kAcross ? k >= k_end : row >= operand.rows) left = 0;
    const int count = left < 0 ? 0 : left > 8 ? 8 : static_cast<int>(left);
    to += 16 * (line * kAcrossChunks + swizzled<kAcrossChunks>(line, across));
    const bits16* from = operand.data;
    if (count > 0) from += row * operand.row_stride + k * operand.k_stride;
    if (aligned) {
      copy_async(shared_address(to), from, 2 * count);
    } else {
      const long long step = Form == kAcross ? operand.row_stride : operand.k_stride;
      unsigned packed[4];
#pragma unroll
      for (int i = 0; i < 8; i += 2) {
        const unsigned low = i < count ? from[i * step] : 0;
        const unsigned high = i + 1 < count ? from[(i + 1) * step] : 0;
        packed[i / 2] = low | high << 16;
      }
      *reinterpret_cast<uint4*>(to) = make_uint4(packed[0], packed[1], packed[2], packed[3]);
    }
  }

  // The step that begins at k0, of which what lies beyond k_end is zeros.
  __device__ __forceinline__ void load(unsigned char* to, long long k0, long long k_end) const {
    if constexpr (kChunks % kThreads == 0) {
#pragma unroll
      for (int i = 0; i < kChunks / kThreads; ++i) {
        const int c = static_cast<int>(threadIdx.x) + i * kThreads;
        chunk(to, c / kAcrossChunks, c % kAcrossChunks, k0, k_end);
      }
    } else {
      for (int c = static_cast<int>(threadIdx.x); c < kChunks; c += kThreads)
        chunk(to, c / kAcrossChunks, c % kAcrossChunks, k0, k_end);
    }
  }
};

// Fragments of 16 rows of A, or of 16 columns of B (two fragments of 8), for one slice of k.
template <int Form, int Rows>
__device__ __forceinline__ void fragment_a(unsigned (&r)[4], unsigned tile, int row, int slice) {
  const int lane = static_cast<int>(threadIdx.x) & 31;
  if constexpr (Form == kAcross) {
    const int line = slice * 16 + ((lane >> 4) & 1) * 8 + (lane & 7);
    const int chunk = row / 8 + ((lane >> 3) & 1);
    load_matrices_transposed(r,
                             tile + 16 * (line * (Rows / 8) + swizzled<Rows / 8>(line, chunk)));
  } else {
    const int line = row + (lane & 15), chunk = slice * 2 + (lane >> 4);
    load_matrices(r, tile + 16 * (line * (kTileK / 8) + swizzled<kTileK / 8>(line, chunk)));
  }
}
template <int Form, int Rows>
__device__ __forceinline__ void fragment_b(unsigned (&r)[4], unsigned tile, int column, int slice) {
  const int lane = static_cast<int>(threadIdx.x) & 31;
  if constexpr (Form == kAcross) {
    const int line = slice * 16 + ((lane >> 3) & 1) * 8 + (lane & 7);
    const int chunk = column / 8 + (lane >> 4);
    load_matrices_transposed(r,
                             tile + 16 * (line * (Rows / 8) + swizzled<Rows / 8>(line, chunk)));
  } else {
    const int line = column + ((lane >> 4) & 1) * 8 + (lane & 7), chunk = slice * 2 + ((lane >> 3) & 1);
    load_matrices(r, tile + 16 * (line * (kTileK / 8) + swizzled<kTileK / 8>(line, chunk)));
  }
}

// Warps of a block, by what they compute.
struct WarpPlace {
  int group, row, column;
  __device__ __forceinline__ WarpPlace() {
    const int warp = static_cast<int>(threadIdx.x) / 32;
    group = warp / (kWarpsM * kWarpsN);
    const int place = warp % (kWarpsM * kWarpsN);
    row = place / kWarpsN * kWarpM;
    column = place % kWarpsN * kWarpN;
  }
};

using WarpSums = float[kWarpM / 16][kWarpN / 8][4];

__device__ __forceinline__ void multiply_step(WarpSums& sums, unsigned tile_a, unsigned tile_b,
                                              const WarpPlace& place) {
#pragma unroll
  for (int i = 0; i < kSlices / kGroups; ++i) {
    const int slice = i * kGroups + place.group;
    unsigned a[kWarpM / 16][4], b[kWarpN / 16][4];
#pragma unroll
    for (int m = 0; m < kWarpM / 16; ++m)
      fragment_a<kFormA, kTileM>(a[m], tile_a, place.row + m * 16, slice);
#pragma unroll
    for (int n = 0; n < kWarpN / 16; ++n)
      fragment_b<kFormB, kTileN>(b[n], tile_b, place.column + n * 16, slice);
#pragma unroll
    for (int m = 0; m < kWarpM / 16; ++m) {
#pragma unroll
      for (int n = 0; n < kWarpN / 8; ++n)
        multiply(sums[m][n], a[m], b[n / 2][n % 2 * 2], b[n / 2][n % 2 * 2 + 1]);
    }
  }
}

// Group after group adds its sums to the tile in shared memory.
__device__ __forceinline__ void store_sums(const WarpSums& sums, float* tile,
                                           const WarpPlace& place) {
  const int lane = static_cast<int>(threadIdx.x) & 31;
#pragma unroll
  for (int group = 0; group < kGroups; ++group) {
    if (place.group == group) {
#pragma unroll
      for (int m = 0; m < kWarpM / 16; ++m) {
#pragma unroll
        for (int n = 0; n < kWarpN / 8; ++n) {
#pragma unroll
          for (int half = 0; half < 2; ++half) {
            const int row = place.row + m * 16 + half * 8 + lane / 4;
            const int column = place.column + n * 8 + lane % 4 * 2;
            float2* to = reinterpret_cast<float2*>(tile + row * kResultPitch + column);
            float2 value = make_float2(sums[m][n][half * 2], sums[m][n][half * 2 + 1]);
            if (group > 0) {
              const float2 before = *to;
              value.x += before.x;
              value.y += before.y;
            }
            *to = value;
          }
        }
      }
    }
    __syncthreads();
  }
}

// The tile of a block: `a` and `b` load it, `depth` is how far k goes.
template <typename A, typename B, typename R>
__device__ __forceinline__ void multiply_tile(const A& a, const B& b, long long depth,
                                              long long row0, long long column0, const R& result) {
  extern __shared__ __align__(128) unsigned char shared[];
  // The part of k of this block of the cluster.
  const int steps = static_cast<int>((depth + kTileK - 1) / kTileK);
  const int part = (steps + kCluster - 1) / kCluster;
  const int first = part * static_cast<int>(cluster_rank());
  const int count = steps - first < part ? steps - first : part;
  const WarpPlace place;
  WarpSums sums = {};

  const auto load = [&](int step) {
    if (step < count) {
      unsigned char* to = shared + step % kStages * (kBytesA + kBytesB);
      const long long k0 = static_cast<long long>(first + step) * kTileK;
      a.load(to, k0, depth);
      b.load(to + kBytesA, k0, depth);
    }
    commit_copies();
  };
#pragma unroll
  for (int step = 0; step < kStages - 1; ++step) load(step);
  for (int step = 0; step < count; ++step) {
    wait_copies<kStages - 2>();
    __syncthreads();  // the step has arrived for all, and all are done with the one before
    load(step + kStages - 1);
    const unsigned tile = shared_address(shared) + step % kStages * (kBytesA + kBytesB);
    multiply_step(sums, tile, tile + kBytesA, place);
  }
  wait_copies<0>();
  __syncthreads();
  float* tile = reinterpret_cast<float*>(shared);
  store_sums(sums, tile, place);
  write_result<kThreads>(result, row0, column0, tile);
}
