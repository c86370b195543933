// Products of f16, bf16, f32, f8e4m3, or u8 times i8 on tensor cores (mma.sync, sm_80 and newer), sums (Acc) in
// f32, or i32 of integers. The alias Bits, written in front of this text, says which: unsigned short, unsigned
// for f32, unsigned char for the last two (the constant kFloat8). Numbers of f8e4m3 become f16 in registers;
// what tensor cores give for a slice of k is added by the ordinary units. Where sums may be rounded to about 14
// bits (kRoundedSums) it is not, and sm_89 has instructions that are twice as fast: what they give for two slices
// is added so. Elements of f32 are multiplied as TF32, of 11 bits, in one of two ways (the constant kThreeProducts):
//   rounded   when they come to registers: what callers have to allow
//   exactly   as the sum of two, high = x rounded and low = x - high. Three products, high * high +
//             high * low + low * high, leave out 2^-22 of the whole. Tensor cores cut off bits where
//             they add, which piles up over long sums: what they give for each slice of k is added
//             by the ordinary units, which round. Errors are those of fused multiply-adds in f32, or
//             smaller (Ootomo and Yokota, 2022). What is not finite has no such parts, and a TF32
//             denormal has fewer bits than one of f32: where a sum comes out as infinite, as NaN or
//             below kLeastExact, it is computed again with ordinary multiply-adds.
//
// A block computes kTileM x kTileN sums. Its operands come in steps of kTileK through a ring of
// kStages pieces of shared memory, filled by cp.async while earlier ones are multiplied. Warps cover
// the tile in pieces of kWarpM x kWarpN; where that takes fewer warps than the block has, the warps
// form kGroups groups that share the work of each step by its slices along k, and add their
// sums at the end. On sm_90, blocks of a cluster share k the same way, a contiguous part for each.
// Both are for results with few tiles, where one block a tile would leave the machine idle; both add
// up in a fixed order.
//
// How operands get to shared memory is the matter of two loaders, LoadA and LoadB, which this file
// has in three forms (the constants kFormA and kFormB say which):
//   kAlongK    neighbours along k are neighbours in memory: a row of the tile is a row of memory
//   kAcross    neighbours across k are: the tile is stored transposed, and ldmatrix turns it; what it
//              cannot turn, elements of f32, are read one by one
//   kElements  neither, or rows that do not begin at multiples of 16 bytes: element by element
// The first two test at run time that addresses are multiples of 16 bytes, since tensors of callers
// can begin anywhere, and fall back to single elements. Convolutions bring a LoadA of their own
// (pixels.cuh). Nothing outside of an operand is read: chunks are cut at the last element.

constexpr int kAlongK = 0, kAcross = 1, kElements = 2;
constexpr int kWarpsM = kTileM / kWarpM, kWarpsN = kTileN / kWarpN;
constexpr bool kTf32 = sizeof(Bits) == 4, kBytes = sizeof(Bits) == 1;
static_assert(kTf32 || !kThreeProducts, "16 bits are multiplied as they are");
static_assert(!kBytes || (kFormA != kAcross && kFormB != kAcross), "ldmatrix turns 16 bits");
#if __CUDA_ARCH__ == 890
constexpr bool kAddApart = kFloat8 && kRoundedSums;
#else
constexpr bool kAddApart = false;
#endif
constexpr int kChunk = 16 / sizeof(Bits);  // elements of 16 bytes
constexpr int kSlice = 2 * kChunk;         // of k, that an instruction multiplies
constexpr int kSlices = kTileK / kSlice;
constexpr int kBytesA = kTileM * kTileK * sizeof(Bits), kBytesB = kTileN * kTileK * sizeof(Bits);
static_assert(kWarpsM * kWarpsN * kGroups * 32 == kThreads, "every warp has its piece");
static_assert(kSlices % kGroups == 0, "groups share the slices of a step");

// A matrix of `rows` x `depth` (along k); element (r, k) at data[r * row_stride + k * k_stride].
struct Operand {
  const Bits* data;
  long long rows, depth, row_stride, k_stride;
  // Of f32; zero outside.
  __device__ __forceinline__ float element(long long row, long long k) const {
    return row < rows && k < depth ? __uint_as_float(data[row * row_stride + k * k_stride]) : 0.0f;
  }
};

// Where a chunk of a line lies. Transposed tiles of f32 are read by eight neighbours of each of four
// lines, two chunks of each: pairs of chunks are permuted.
template <bool Turned, int Chunks>
__device__ __forceinline__ int place_in_line(int line, int chunk) {
  if constexpr (!Turned || !kTf32) return swizzled<Chunks>(line, chunk);
  if constexpr (Chunks >= 8) return chunk ^ ((line & 3) << 1);
  return chunk ^ (line & 2);
}

// The 16 bytes of a chunk whose elements are element(0), element(1) and so on.
template <typename Element>
__device__ __forceinline__ uint4 gathered_chunk(const Element& element) {
  unsigned packed[4];
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    if constexpr (kTf32) {
      packed[i] = element(i);
    } else if constexpr (kBytes) {
      const unsigned low = element(4 * i) | element(4 * i + 1) << 8;
      const unsigned high = element(4 * i + 2) | element(4 * i + 3) << 8;
      packed[i] = low | high << 16;
    } else {
      const unsigned low = element(2 * i), high = element(2 * i + 1);
      packed[i] = low | high << 16;
    }
  }
  return make_uint4(packed[0], packed[1], packed[2], packed[3]);
}

// Loads tiles of Rows x kTileK of an operand, from row `row0` on, one step after the other.
//
// A chunk is 16 bytes of neighbours; a line is what chunks lie side by side in, a row or (kAcross) a step of
// k. A thread has the same place in every kSkip-th line, so that one address and two strides give all
// of its chunks; only the last step has to look where k ends.
template <int Rows, int Form>
struct LoadMatrix {
  static constexpr bool kTurned = Form == kAcross;
  static constexpr int kAcrossChunks = (kTurned ? Rows : kTileK) / kChunk;
  static constexpr int kLines = kTurned ? kTileK : Rows;
  static constexpr int kSkip = kThreads / kAcrossChunks;  // lines between two chunks of a thread
  static constexpr int kChunks = (kLines + kSkip - 1) / kSkip;
  static_assert(kThreads % kAcrossChunks == 0, "a thread keeps its place in lines");

  const Bits* next;           // the first chunk of the next step
  long long line_stride, step;  // to the next line, and from an element of a chunk to the next
  long long rows, row;          // rows there are, and the first one of this thread
  int place, line;              // of the chunk in its line; of the first line
  bool aligned;

  __device__ __forceinline__ LoadMatrix(const Operand& operand, long long row0, long long k0) {
    place = static_cast<int>(threadIdx.x) % kAcrossChunks;
    line = static_cast<int>(threadIdx.x) / kAcrossChunks;
    rows = operand.rows;
    row = row0 + (kTurned ? place * kChunk : line);
    const long long k = k0 + (kTurned ? line : place * kChunk);
    line_stride = kTurned ? operand.k_stride : operand.row_stride;
    step = kTurned ? operand.row_stride : operand.k_stride;
    aligned = Form != kElements && ((reinterpret_cast<unsigned long long>(operand.data) |
                                     (sizeof(Bits) * line_stride)) & 15) == 0;
    next = operand.data + row * operand.row_stride + k * operand.k_stride;
  }

  // How many elements of a chunk exist, `left` being how far k goes from the first of the step.
  __device__ __forceinline__ int count(int chunk, int left) const {
    const int skipped = chunk * kSkip;
    if constexpr (kTurned) {
      const long long there = rows - row;
      return line + skipped < left && there > 0
                 ? (there < kChunk ? static_cast<int>(there) : kChunk) : 0;
    } else {
      const int there = left - place * kChunk;
      return row + skipped < rows && there > 0 ? (there < kChunk ? there : kChunk) : 0;
    }
  }

  // The next step, of which what lies beyond `left` is zeros.
  __device__ __forceinline__ void load(unsigned char* to, int left) {
    const int offset = 16 * (line * kAcrossChunks);
#pragma unroll
    for (int i = 0; i < kChunks; ++i) {
      if (kLines % kSkip != 0 && line + i * kSkip >= kLines) break;
      const int exist = count(i, left);
      unsigned char* const chunk =
          to + offset + i * (16 * kSkip * kAcrossChunks) +
          16 * place_in_line<kTurned, kAcrossChunks>(line + i * kSkip, place);
      const Bits* const from = next + i * kSkip * line_stride;
      if (aligned) {
        copy_async(shared_address(chunk), exist > 0 ? from : next,
                   static_cast<int>(sizeof(Bits)) * exist);
      } else {
        *reinterpret_cast<uint4*>(chunk) =
            gathered_chunk([&](int e) { return e < exist ? from[e * step] : Bits(0); });
      }
    }
    next += kTileK * (kTurned ? line_stride : step);
  }
};

// Two right operands, of which a tile has as many rows of each.
struct OperandPair {
  const Operand &first, &second;
};

// Loads tiles of them; not for kAcross.
template <int Form>
struct LoadPair {
  static_assert(Form != kAcross, "rows of the second follow those of the first");
  LoadMatrix<kResultN, Form> first, second;

  __device__ __forceinline__ LoadPair(const OperandPair& both, long long row0, long long k0)
      : first(both.first, row0, k0), second(both.second, row0, k0) {}
  __device__ __forceinline__ void load(unsigned char* to, int left) {
    first.load(to, left);
    second.load(to + kBytesB / 2, left);
  }
};

// The element of f32 of a transposed tile.
template <int Rows>
__device__ __forceinline__ unsigned turned_element(unsigned tile, int row, int line) {
  constexpr int kChunks = Rows / kChunk;
  const int chunk = place_in_line<true, kChunks>(line, row / kChunk);
  return load_word(tile + 16 * (line * kChunks + chunk) + 4 * (row % kChunk));
}

// Fragments of 16 rows of A, or of 16 columns of B (two fragments of 8), for one slice of k. An
// instruction for TF32 takes elements where one for 16 bits takes pairs of them: ldmatrix suits both.
template <int Form, int Rows>
__device__ __forceinline__ void fragment_a(unsigned (&r)[4], unsigned tile, int row, int slice) {
  const int lane = static_cast<int>(threadIdx.x) & 31;
  if constexpr (Form == kAcross && kTf32) {
#pragma unroll
    for (int i = 0; i < 4; ++i)
      r[i] = turned_element<Rows>(tile, row + i % 2 * 8 + lane / 4, slice * 8 + i / 2 * 4 + lane % 4);
  } else if constexpr (Form == kAcross) {
    const int line = slice * 16 + ((lane >> 4) & 1) * 8 + (lane & 7);
    const int chunk = row / 8 + ((lane >> 3) & 1);
    load_matrices_transposed(r,
                             tile + 16 * (line * (Rows / 8) + swizzled<Rows / 8>(line, chunk)));
  } else {
    constexpr int kChunks = kTileK / kChunk;
    const int line = row + (lane & 15), chunk = slice * 2 + (lane >> 4);
    load_matrices(r, tile + 16 * (line * kChunks + swizzled<kChunks>(line, chunk)));
  }
  if constexpr (kTf32 && !kThreeProducts) round_to_tf32(r);
}
template <int Form, int Rows>
__device__ __forceinline__ void fragment_b(unsigned (&r)[4], unsigned tile, int column, int slice) {
  const int lane = static_cast<int>(threadIdx.x) & 31;
  if constexpr (Form == kAcross && kTf32) {
#pragma unroll
    for (int i = 0; i < 4; ++i)
      r[i] = turned_element<Rows>(tile, column + i / 2 * 8 + lane / 4, slice * 8 + i % 2 * 4 + lane % 4);
  } else if constexpr (Form == kAcross) {
    const int line = slice * 16 + ((lane >> 3) & 1) * 8 + (lane & 7);
    const int chunk = column / 8 + (lane >> 4);
    load_matrices_transposed(r,
                             tile + 16 * (line * (Rows / 8) + swizzled<Rows / 8>(line, chunk)));
  } else {
    constexpr int kChunks = kTileK / kChunk;
    const int line = column + ((lane >> 4) & 1) * 8 + (lane & 7), chunk = slice * 2 + ((lane >> 3) & 1);
    load_matrices(r, tile + 16 * (line * kChunks + swizzled<kChunks>(line, chunk)));
  }
  if constexpr (kTf32 && !kThreeProducts) round_to_tf32(r);
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

using WarpSums = Acc[kWarpM / 16][kWarpN / 8][4];

template <typename Sum>
__device__ __forceinline__ void multiply_fragments(Sum (&c)[4], const unsigned (&a)[4], unsigned b0,
                                                   unsigned b1) {
  if constexpr (kTf32) {
    multiply_tf32(c, a, b0, b1);
  } else if constexpr (kBytes) {
    multiply_integers(c, a, b0, b1);
  } else {
    multiply(c, a, b0, b1);
  }
}

// Of f8e4m3 as f16.
template <typename Sums>
__device__ __forceinline__ void multiply_widened_slice(Sums& sums, unsigned tile_a, unsigned tile_b,
                                                       const WarpPlace& place, int slice) {
  unsigned b[kWarpN / 16][4][2];
#pragma unroll
  for (int n = 0; n < kWarpN / 16; ++n) {
    unsigned codes[4];
    fragment_b<kFormB, kTileN>(codes, tile_b, place.column + n * 16, slice);
#pragma unroll
    for (int i = 0; i < 4; ++i) widen_float8(codes[i], b[n][i]);
  }
#pragma unroll
  for (int m = 0; m < kWarpM / 16; ++m) {
    unsigned codes[4], a[4][2];
    fragment_a<kFormA, kTileM>(codes, tile_a, place.row + m * 16, slice);
#pragma unroll
    for (int i = 0; i < 4; ++i) widen_float8(codes[i], a[i]);
#pragma unroll
    for (int n = 0; n < kWarpN / 8; ++n) {
      const auto& low = b[n / 2][n % 2 * 2];
      const auto& high = b[n / 2][n % 2 * 2 + 1];
      if constexpr (kRoundedSums) {
        multiply_widened(sums[m][n], a, low, high);
      } else {
        float part[4] = {};
        multiply_widened(part, a, low, high);
#pragma unroll
        for (int i = 0; i < 4; ++i) sums[m][n][i] += part[i];
      }
    }
  }
}

// Of f8e4m3 as such, two slices, the second of which is `next` behind the first.
template <typename Sums>
__device__ __forceinline__ void multiply_two_slices(Sums& sums, unsigned tile_a, unsigned tile_b,
                                                    const WarpPlace& place, int slice, int next) {
  unsigned b[2][kWarpN / 16][4];
#pragma unroll
  for (int s = 0; s < 2; ++s) {
#pragma unroll
    for (int n = 0; n < kWarpN / 16; ++n)
      fragment_b<kFormB, kTileN>(b[s][n], tile_b, place.column + n * 16, slice + s * next);
  }
#pragma unroll
  for (int m = 0; m < kWarpM / 16; ++m) {
    unsigned a[2][4];
#pragma unroll
    for (int s = 0; s < 2; ++s)
      fragment_a<kFormA, kTileM>(a[s], tile_a, place.row + m * 16, slice + s * next);
#pragma unroll
    for (int n = 0; n < kWarpN / 8; ++n) {
      float part[4] = {};
#pragma unroll
      for (int s = 0; s < 2; ++s)
        multiply_float8(part, a[s], b[s][n / 2][n % 2 * 2], b[s][n / 2][n % 2 * 2 + 1]);
#pragma unroll
      for (int i = 0; i < 4; ++i) sums[m][n][i] += part[i];
    }
  }
}

template <typename Sums>
__device__ __forceinline__ void multiply_slice(Sums& sums, unsigned tile_a, unsigned tile_b,
                                               const WarpPlace& place, int slice) {
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
      multiply_fragments(sums[m][n], a[m], b[n / 2][n % 2 * 2], b[n / 2][n % 2 * 2 + 1]);
  }
}

template <typename Sums>
__device__ __forceinline__ void multiply_slice_exactly(Sums& sums, unsigned tile_a, unsigned tile_b,
                                                       const WarpPlace& place, int slice) {
  unsigned b_high[kWarpN / 16][4], b_low[kWarpN / 16][4];
#pragma unroll
  for (int n = 0; n < kWarpN / 16; ++n) {
    fragment_b<kFormB, kTileN>(b_low[n], tile_b, place.column + n * 16, slice);
    split_tf32(b_high[n], b_low[n]);
  }
#pragma unroll
  for (int m = 0; m < kWarpM / 16; ++m) {
    unsigned a_high[4], a_low[4];
    fragment_a<kFormA, kTileM>(a_low, tile_a, place.row + m * 16, slice);
    split_tf32(a_high, a_low);
#pragma unroll
    for (int n = 0; n < kWarpN / 8; ++n) {
      const int at = n % 2 * 2;
      float part[4] = {};
      multiply_tf32(part, a_low, b_high[n / 2][at], b_high[n / 2][at + 1]);
      multiply_tf32(part, a_high, b_low[n / 2][at], b_low[n / 2][at + 1]);
      multiply_tf32(part, a_high, b_high[n / 2][at], b_high[n / 2][at + 1]);
#pragma unroll
      for (int i = 0; i < 4; ++i) sums[m][n][i] += part[i];
    }
  }
}

template <typename Sums>
__device__ __forceinline__ void multiply_step(Sums& sums, unsigned tile_a, unsigned tile_b,
                                              const WarpPlace& place) {
  if constexpr (kThreeProducts) {
#pragma unroll 1
    for (int i = 0; i < kSlices / kGroups; ++i)
      multiply_slice_exactly(sums, tile_a, tile_b, place, i * kGroups + place.group);
  } else if constexpr (kAddApart) {
    static_assert(kSlices / kGroups % 2 == 0, "two slices at a time");
#pragma unroll
    for (int i = 0; i < kSlices / kGroups; i += 2)
      multiply_two_slices(sums, tile_a, tile_b, place, i * kGroups + place.group, kGroups);
  } else if constexpr (kFloat8) {
#pragma unroll
    for (int i = 0; i < kSlices / kGroups; ++i)
      multiply_widened_slice(sums, tile_a, tile_b, place, i * kGroups + place.group);
  } else {
#pragma unroll
    for (int i = 0; i < kSlices / kGroups; ++i)
      multiply_slice(sums, tile_a, tile_b, place, i * kGroups + place.group);
  }
}

// Group after group adds its sums to the tile in shared memory.
__device__ __forceinline__ void store_sums(const WarpSums& sums, Acc* tile,
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
            SumPair* to = reinterpret_cast<SumPair*>(tile + row * kResultPitch + column);
            SumPair value{{sums[m][n][half * 2], sums[m][n][half * 2 + 1]}};
            if (group > 0) {
              const SumPair before = *to;
              value.at[0] += before.at[0];
              value.at[1] += before.at[1];
            }
            *to = value;
          }
        }
      }
    }
    __syncthreads();
  }
}

// The part of k of this block of the cluster, in steps.
struct Steps {
  int first, count;
  __device__ __forceinline__ explicit Steps(long long depth) {
    const int steps = static_cast<int>((depth + kTileK - 1) / kTileK);
    const int part = (steps + kCluster - 1) / kCluster;
    first = part * static_cast<int>(cluster_rank());
    count = steps - first < part ? steps - first : part;
  }
  __device__ __forceinline__ long long k0() const { return static_cast<long long>(first) * kTileK; }
};

// Denormals of TF32 lie 2^-136 apart: an operand of them is off by 2^-137, which is 2^-37 of a sum of
// this size, and 2^-24 where the other factor is 2^13.
constexpr float kLeastExact = 0x1p-100f;

// Whether three products can have given `sum`.
__device__ __forceinline__ bool is_exact(float sum) {
  const float size = fabsf(sum);
  return sum == 0 || (size >= kLeastExact && size < __int_as_float(0x7f800000));
}

__device__ __forceinline__ bool are_exact(const WarpSums& sums) {
  bool exact = true;
#pragma unroll
  for (int m = 0; m < kWarpM / 16; ++m) {
#pragma unroll
    for (int n = 0; n < kWarpN / 8; ++n) {
#pragma unroll
      for (int i = 0; i < 4; ++i) exact &= is_exact(sums[m][n][i]);
    }
  }
  return exact;
}

// The element that a place across a tile has at k.
__device__ __forceinline__ float right_element(const Operand& b, long long column0, int place,
                                               long long k) {
  return b.element(column0 + place, k);
}
__device__ __forceinline__ float right_element(const OperandPair& both, long long column0, int place,
                                               long long k) {
  return place < kResultN ? both.first.element(column0 + place, k)
                          : both.second.element(column0 + place - kResultN, k);
}

// The sums of a tile that are not exact, of operands from row0 and column0 on, again.
template <typename A, typename B>
__device__ __forceinline__ void multiply_again(float* tile, const A& a, const B& b, const Steps& steps,
                                            long long row0, long long column0) {
  for (int i = static_cast<int>(threadIdx.x); i < kTileM * kTileN; i += kThreads) {
    float& sum = tile[i / kTileN * kResultPitch + i % kTileN];
    if (is_exact(sum)) continue;
    float again = 0;
    for (long long k = steps.k0(); k < steps.k0() + steps.count * kTileK; ++k)
      again = fmaf(a.element(row0 + i / kTileN, k), right_element(b, column0, i % kTileN, k), again);
    sum = again;
  }
  __syncthreads();
}

// The tile of a block: `load_a` and `load_b` load the steps of `a` and `b`, `depth` is how far k goes.
template <typename LoadA, typename LoadB, typename A, typename B, typename R>
__device__ __forceinline__ void multiply_tile(LoadA load_a, LoadB load_b, const A& a, const B& b,
                                              const Steps& steps, long long depth, long long row0,
                                              long long column0, const R& result) {
  extern __shared__ __align__(128) unsigned char shared[];
  constexpr int kStageBytes = kBytesA + kBytesB;
  const WarpPlace place;
  WarpSums sums = {};
  int loaded = 0, stage_in = 0, stage_out = 0;

  const auto load = [&] {
    if (loaded < steps.count) {
      const long long rest = depth - steps.k0() - static_cast<long long>(loaded) * kTileK;
      const int left = rest < kTileK ? static_cast<int>(rest) : kTileK;
      unsigned char* const to = shared + stage_in * kStageBytes;
      load_a.load(to, left);
      load_b.load(to + kBytesA, left);
    }
    commit_copies();
    ++loaded;
    stage_in = stage_in + 1 == kStages ? 0 : stage_in + 1;
  };
#pragma unroll
  for (int step = 0; step < kStages - 1; ++step) load();
  for (int step = 0; step < steps.count; ++step) {
    wait_copies<kStages - 2>();
    __syncthreads();  // the step has arrived for all, and all are done with the one before
    load();
    const unsigned tile = shared_address(shared) + stage_out * kStageBytes;
    multiply_step(sums, tile, tile + kBytesA, place);
    stage_out = stage_out + 1 == kStages ? 0 : stage_out + 1;
  }
  wait_copies<0>();
  __syncthreads();
  Acc* tile = reinterpret_cast<Acc*>(shared);
  store_sums(sums, tile, place);
  if constexpr (kThreeProducts) {
    if (__syncthreads_or(!are_exact(sums))) multiply_again(tile, a, b, steps, row0, column0);
  }
  write_result<kThreads>(result, row0, column0, tile);
}
