// Attention of f16 and bf16 on tensor cores: scores, softmax and weighted mean in one pass over the
// keys, nothing of the scores in memory.
//
// A block takes kTileI rows of queries; a warp kRowTiles times 16 of them, so that a fragment of keys or
// values is read from shared memory once for all of these. Keys and values pass through shared memory
// in steps of kKeys. For each row the block keeps the largest score so far, the sum of
// exp(score - largest) and the sum of these times the values; where a step brings a larger score,
// both sums are scaled. Weights are rounded to the type of the values before they are multiplied.
// Scores are in units of log 2, so that exp is one instruction, ex2.
//
// Few rows (a token that is decoded) leave most of the machine idle. There, kParts groups of warps,
// and on sm_90 the blocks of a cluster, take every n-th step of the keys for the same rows, and their
// sums are combined in a fixed order. A row is then any query that reads the same keys: the heads of
// a group are rows like the positions are.
//
// What is outside of the operands is zeros in shared memory and minus infinity among the scores.
// Rows of shared memory are padded by 16 bytes: eight of them lie in different banks.

constexpr int kPitchK = kHeadPad + 8, kPitchV = kValuePad + 8;
constexpr int kPitchQ = kPitchK > kPitchV ? kPitchK : kPitchV;
constexpr int kWarpRows = 16 * kRowTiles;
constexpr int kTileI = kWarpsI * kWarpRows;
constexpr int kThreads = kWarpsI * kParts * 32;
constexpr int kStepBytes = kKeys * (kPitchK + kPitchV) * 2;
constexpr int kQueryBytes = kTileI * kPitchQ * 2;
static_assert(kParts == 1 || kWarpsI * kRowTiles == 1, "a part is a block, or a warp of 16 rows");

// Steps of kKeys rows one after the other, `step` of them further each time. Where rows have a number
// of chunks that divides the threads, a thread keeps its place in them.
template <int Columns, int Padded, int Pitch, int Threads>
struct LoadRows {
  static constexpr int kAcross = Padded / 8;
  static constexpr bool kKeeps = Threads % kAcross == 0;
  static constexpr int kSkip = kKeeps ? Threads / kAcross : 1;  // rows between two chunks
  Rows from;
  const bits16* next;
  int row, column;

  __device__ __forceinline__ LoadRows(const Rows& from, int first, int thread) : from(from) {
    row = kKeeps ? thread / kAcross : 0;
    column = kKeeps ? thread % kAcross * 8 : 0;
    next = from.data + (static_cast<long long>(first) * kKeys + row) * from.row_stride;
  }

  __device__ __forceinline__ void load(bits16* to, int step, int steps, int thread) {
    const long long left = from.rows - static_cast<long long>(step) * kKeys;  // rows there are
    if constexpr (kKeeps) {
#pragma unroll
      for (int i = 0; i < (kKeys + kSkip - 1) / kSkip; ++i) {
        if (kKeys % kSkip != 0 && row + i * kSkip >= kKeys) break;
        const bool exists = row + i * kSkip < left;
        load_chunk<Columns>(to + (row + i * kSkip) * Pitch + column,
                            exists ? next + i * kSkip * from.row_stride : from.data, from.stride,
                            column, exists, from.aligned);
      }
    } else {
      for (int c = thread; c < kKeys * kAcross; c += Threads) {
        const int line = c / kAcross, place = c % kAcross * 8;
        const bool exists = line < left;
        load_chunk<Columns>(to + line * Pitch + place,
                            exists ? next + line * from.row_stride : from.data, from.stride, place,
                            exists, from.aligned);
      }
    }
    next += static_cast<long long>(steps) * kKeys * from.row_stride;
  }
};

// What a warp knows of its rows lane / 4 and lane / 4 + 8: sums over its steps of the keys.
struct RowSums {
  float largest[2], total[2];  // total: of this lane's columns alone
  float mean[kValuePad / 8][4];
};

// Fragments of the queries stay in registers, unless rows are so long that the sums need these.
constexpr bool kHoldQueries = kHeadPad * kRowTiles <= 128;
struct Queries {
  unsigned held[kHoldQueries ? kHeadPad / 16 : 1][4];
  unsigned address;

  __device__ __forceinline__ void load(const bits16* rows) {
    const int lane = static_cast<int>(threadIdx.x) & 31;
    address = shared_address(rows + (lane & 15) * kPitchQ + (lane >> 4) * 8);
    if constexpr (kHoldQueries) {
#pragma unroll
      for (int d = 0; d < kHeadPad / 16; ++d) load_matrices(held[d], address + d * 32);
    }
  }
  __device__ __forceinline__ void fragment(unsigned (&r)[4], int d) const {
    if constexpr (kHoldQueries) {
#pragma unroll
      for (int i = 0; i < 4; ++i) r[i] = held[d][i];
    } else {
      load_matrices(r, address + d * 32);
    }
  }
};

// One step: `adjust(row, key, score)` masks and biases, where `masked` says that this is needed.
template <typename Adjust>
__device__ __forceinline__ void attend(RowSums (&sums)[kRowTiles], const Queries* queries,
                                       const bits16* keys, const bits16* values, long long row,
                                       long long key0, bool masked, const Adjust& adjust) {
  const int lane = static_cast<int>(threadIdx.x) & 31;
  float scores[kRowTiles][kKeys / 8][4] = {};
#pragma unroll (kHeadPad <= 128 ? kHeadPad / 16 : 2)
  for (int d = 0; d < kHeadPad / 16; ++d) {
    unsigned query[kRowTiles][4];
#pragma unroll
    for (int r = 0; r < kRowTiles; ++r) queries[r].fragment(query[r], d);
#pragma unroll
    for (int j = 0; j < kKeys / 16; ++j) {
      unsigned b[4];
      load_matrices(b, shared_address(keys + (j * 16 + ((lane >> 4) & 1) * 8 + (lane & 7)) * kPitchK +
                                      d * 16 + ((lane >> 3) & 1) * 8));
#pragma unroll
      for (int r = 0; r < kRowTiles; ++r) {
        multiply(scores[r][2 * j], query[r], b[0], b[1]);
        multiply(scores[r][2 * j + 1], query[r], b[2], b[3]);
      }
    }
  }
#pragma unroll
  for (int r = 0; r < kRowTiles; ++r) {
    float largest[2] = {sums[r].largest[0], sums[r].largest[1]};
#pragma unroll
    for (int j = 0; j < kKeys / 8; ++j) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        float score = scores[r][j][i] * kScale;
        if (masked)
          score = adjust(row + r * 16 + i / 2 * 8, key0 + j * 8 + lane % 4 * 2 + i % 2, score);
        scores[r][j][i] = score;
        largest[i / 2] = fmaxf(largest[i / 2], score);
      }
    }
    float base[2];
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      largest[h] = fmaxf(largest[h], __shfl_xor_sync(0xffffffffu, largest[h], 1));
      largest[h] = fmaxf(largest[h], __shfl_xor_sync(0xffffffffu, largest[h], 2));
      base[h] = largest[h] == minus_infinity() ? 0.0f : largest[h];
      const float scale = exp2_of(sums[r].largest[h] - base[h]);
      sums[r].largest[h] = largest[h];
      sums[r].total[h] *= scale;
#pragma unroll
      for (int e = 0; e < kValuePad / 8; ++e) {
        sums[r].mean[e][2 * h] *= scale;
        sums[r].mean[e][2 * h + 1] *= scale;
      }
    }
#pragma unroll
    for (int j = 0; j < kKeys / 8; ++j) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        scores[r][j][i] = exp2_of(scores[r][j][i] - base[i / 2]);
        sums[r].total[i / 2] += scores[r][j][i];
      }
    }
  }
#pragma unroll
  for (int j = 0; j < kKeys / 16; ++j) {
    unsigned weights[kRowTiles][4];
#pragma unroll
    for (int r = 0; r < kRowTiles; ++r) {
      weights[r][0] = pack16(scores[r][2 * j][0], scores[r][2 * j][1]);
      weights[r][1] = pack16(scores[r][2 * j][2], scores[r][2 * j][3]);
      weights[r][2] = pack16(scores[r][2 * j + 1][0], scores[r][2 * j + 1][1]);
      weights[r][3] = pack16(scores[r][2 * j + 1][2], scores[r][2 * j + 1][3]);
    }
#pragma unroll
    for (int e = 0; e < kValuePad / 16; ++e) {
      unsigned b[4];
      load_matrices_transposed(
          b, shared_address(values + (j * 16 + ((lane >> 3) & 1) * 8 + (lane & 7)) * kPitchV + e * 16 +
                            (lane >> 4) * 8));
#pragma unroll
      for (int r = 0; r < kRowTiles; ++r) {
        multiply(sums[r].mean[2 * e], weights[r], b[0], b[1]);
        multiply(sums[r].mean[2 * e + 1], weights[r], b[2], b[3]);
      }
    }
  }
}

// --- Results ---

// The block has all keys of its rows: through the place of its queries in shared memory, so that rows
// are stored in whole vectors. `target(row)`: where a row of the result is, null for none.
template <typename Target>
__device__ __forceinline__ void store_rows(const RowSums& sums, bits16* place, long long row0,
                                           long long out_stride, const Target& target) {
  const int lane = static_cast<int>(threadIdx.x) & 31;
#pragma unroll
  for (int h = 0; h < 2; ++h) {
    float total = sums.total[h];
    total += __shfl_xor_sync(0xffffffffu, total, 1);
    total += __shfl_xor_sync(0xffffffffu, total, 2);
#pragma unroll
    for (int e = 0; e < kValuePad / 8; ++e) {
      *reinterpret_cast<unsigned*>(place + (lane / 4 + h * 8) * kPitchQ + e * 8 + lane % 4 * 2) =
          pack16(quotient(sums.mean[e][2 * h], total), quotient(sums.mean[e][2 * h + 1], total));
    }
  }
  __syncwarp();
  constexpr int kAcross = kValuePad / 8;
  for (int c = lane; c < 16 * kAcross; c += 32) {
    const int row = c / kAcross, column = c % kAcross * 8;
    bits16* const to = target(row0 + row);
    if (to == nullptr) continue;
    const bits16* const from = place + row * kPitchQ + column;
    const bool whole = out_stride == 1 && column + 8 <= kValueDim &&
                       (reinterpret_cast<unsigned long long>(to + column) & 15) == 0;
    if (whole) {
      *reinterpret_cast<uint4*>(to + column) = *reinterpret_cast<const uint4*>(from);
    } else {
      for (int i = 0; i < 8 && column + i < kValueDim; ++i) to[(column + i) * out_stride] = from[i];
    }
  }
}

// What parts of the keys make of an element of the result: of each the largest score of its row, and the two
// sums. `read(part, offset)` reads one of a part, which lie as kPart floats.
constexpr int kPart = 16 * (kValuePad + 2);
struct Joined {
  float largest, total, sum;
};
template <int Parts, typename Read>
__device__ __forceinline__ Joined join_parts(int row, int column, const Read& read) {
  float largest[Parts], total[Parts], sum[Parts];
#pragma unroll
  for (int i = 0; i < Parts; ++i) {
    largest[i] = read(i, 16 * kValuePad + row);
    total[i] = read(i, 16 * kValuePad + 16 + row);
    sum[i] = read(i, row * kValuePad + column);
  }
  Joined all = {minus_infinity(), 0, 0};
#pragma unroll
  for (int i = 0; i < Parts; ++i) all.largest = fmaxf(all.largest, largest[i]);
  const float base = all.largest == minus_infinity() ? 0.0f : all.largest;
#pragma unroll
  for (int i = 0; i < Parts; ++i) {
    const float scale = exp2_of(largest[i] - base);
    all.total += scale * total[i];
    all.sum += scale * sum[i];
  }
  return all;
}

// The kParts parts of this block are joined, then those of the blocks of the cluster: what lies in another
// block takes long to read.
template <typename Target>
__device__ __forceinline__ void combine_parts(RowSums& sums, float* shared, long long row0,
                                              long long out_stride, const Target& target) {
  const int lane = static_cast<int>(threadIdx.x) & 31, part = static_cast<int>(threadIdx.x) / 32;
  float* const own = shared + part * kPart;
#pragma unroll
  for (int h = 0; h < 2; ++h) {
    float total = sums.total[h];
    total += __shfl_xor_sync(0xffffffffu, total, 1);
    total += __shfl_xor_sync(0xffffffffu, total, 2);
    const int row = lane / 4 + h * 8;
    if (lane % 4 == 0) {
      own[16 * kValuePad + row] = sums.largest[h];
      own[16 * kValuePad + 16 + row] = total;
    }
#pragma unroll
    for (int e = 0; e < kValuePad / 8; ++e) {
      *reinterpret_cast<float2*>(own + row * kValuePad + e * 8 + lane % 4 * 2) =
          make_float2(sums.mean[e][2 * h], sums.mean[e][2 * h + 1]);
    }
  }
  __syncthreads();
  const auto read_own = [&](int i, int offset) { return shared[i * kPart + offset]; };
  const auto store = [&](bits16* to, int column, const Joined& all) {
    to[column * out_stride] = static_cast<bits16>(pack16(quotient(all.sum, all.total), 0.0f));
  };
  float* const block = shared + kParts * kPart;  // what this block has, as one part
  for (int c = static_cast<int>(threadIdx.x); c < 16 * kValueDim; c += kThreads) {
    const int row = c / kValueDim, column = c % kValueDim;
    bits16* const to = target(row0 + row);
    if (to == nullptr) continue;
    const Joined all = join_parts<kParts>(row, column, read_own);
    if constexpr (kCluster == 1) {
      store(to, column, all);
    } else {
      block[row * kValuePad + column] = all.sum;
      if (column == 0) {
        block[16 * kValuePad + row] = all.largest;
        block[16 * kValuePad + 16 + row] = all.total;
      }
    }
  }
  if constexpr (kCluster > 1) {
    cluster_barrier();
    const unsigned base = shared_address(block);
    const auto read = [&](int rank, int offset) {
      float value;
      asm volatile("ld.shared::cluster.f32 %0, [%1];"
                   : "=f"(value)
                   : "r"(in_block(base + 4u * offset, rank))
                   : "memory");
      return value;
    };
    // Elements of the rows, every kCluster-th for this block.
    for (int c = static_cast<int>(threadIdx.x) * kCluster + static_cast<int>(cluster_rank());
         c < 16 * kValueDim; c += kThreads * kCluster) {
      const int row = c / kValueDim, column = c % kValueDim;
      bits16* const to = target(row0 + row);
      if (to != nullptr) store(to, column, join_parts<kCluster>(row, column, read));
    }
    cluster_barrier();  // the others still read what this block has
  }
}

// --- The whole ---

// Rows from row0 on, of `rows`; keys that any of them sees: `keys`. `query(row)`: where a row of
// queries is, null for none. `full(step's first key)`: no score of the step is masked or biased.
template <typename Query, typename Adjust, typename Full, typename Target>
__device__ __forceinline__ void attend_rows(const Query& query_row, long long query_stride,
                                            bool query_aligned, const Rows& key_rows,
                                            const Rows& value_rows, long long row0, long long keys,
                                            const Adjust& adjust, const Full& full,
                                            long long out_stride, const Target& target) {
  extern __shared__ __align__(128) unsigned char shared[];
  const int lane = static_cast<int>(threadIdx.x) & 31, warp = static_cast<int>(threadIdx.x) / 32;
  const int part = warp / kWarpsI, warp_row = warp % kWarpsI * kWarpRows;
  bits16* const queries = reinterpret_cast<bits16*>(shared);
  unsigned char* const steps = shared + kQueryBytes + part * 2 * kStepBytes;
  const int thread = static_cast<int>(threadIdx.x) % (kWarpsI * 32);

  constexpr int kAcross = kHeadPad / 8;
  for (int c = static_cast<int>(threadIdx.x); c < kTileI * kAcross; c += kThreads) {
    const int row = c / kAcross, column = c % kAcross * 8;
    const bits16* const from = query_row(row0 + row);
    load_chunk<kHeadDim>(queries + row * kPitchQ + column, from == nullptr ? key_rows.data : from,
                         query_stride, column, from != nullptr, query_aligned);
  }
  commit_copies();

  const int count = static_cast<int>((keys + kKeys - 1) / kKeys);
  constexpr int kShares = kParts * kCluster;
  const int share = part + kParts * static_cast<int>(cluster_rank());
  LoadRows<kHeadDim, kHeadPad, kPitchK, kWarpsI * 32> load_keys(key_rows, share, thread);
  LoadRows<kValueDim, kValuePad, kPitchV, kWarpsI * 32> load_values(value_rows, share, thread);
  const auto load = [&](int step, int stage) {
    if (step < count) {
      bits16* const to = reinterpret_cast<bits16*>(steps + stage * kStepBytes);
      load_keys.load(to, step, kShares, thread);
      load_values.load(to + kKeys * kPitchK, step, kShares, thread);
    }
    commit_copies();
  };
  load(share, 0);
  wait_copies<1>();
  __syncthreads();
  Queries held[kRowTiles];
  RowSums sums[kRowTiles] = {};
#pragma unroll
  for (int r = 0; r < kRowTiles; ++r) {
    held[r].load(queries + (warp_row + r * 16) * kPitchQ);
    sums[r].largest[0] = sums[r].largest[1] = minus_infinity();
  }
  const auto barrier = [&] {
    if constexpr (kParts == 1) {
      __syncthreads();
    } else {
      __syncwarp();
    }
  };
  int stage = 0;
  for (int step = share; step < count; step += kShares) {
    load(step + kShares, stage ^ 1);
    wait_copies<1>();
    barrier();
    const bits16* const at = reinterpret_cast<const bits16*>(steps + stage * kStepBytes);
    const long long key0 = static_cast<long long>(step) * kKeys;
    attend(sums, held, at, at + kKeys * kPitchK, row0 + warp_row + lane / 4, key0, !full(key0),
           adjust);
    barrier();
    stage ^= 1;
  }
  wait_copies<0>();
  if constexpr (kShares == 1) {
    __syncwarp();
#pragma unroll
    for (int r = 0; r < kRowTiles; ++r) {
      store_rows(sums[r], queries + (warp_row + r * 16) * kPitchQ, row0 + warp_row + r * 16,
                 out_stride, target);
    }
  } else {
    __syncthreads();
    combine_parts(sums[0], reinterpret_cast<float*>(shared), row0, out_stride, target);
  }
}
