// Attention of f16 and bf16 on Hopper: scores and weighted means by products of groups of four warps
// (wgmma). Scores and weights never leave the registers.
//
// An item is kTileRows rows of queries of one batch index, 64 for each of kGroups groups. One more
// group, the loaders, brings its queries, and keys and values in steps of kKeys of them, to rings
// of shared memory; blocks stay and take every n-th item, so that the loaders are ahead with the next
// one. Each place of a ring has a barrier `full`, at which all threads of the loaders arrive once
// their copies are there, and a barrier `empty` for its readers. Copies are cp.async and not the copy
// engine's, which cannot read tensors that begin anywhere, as those of callers do.
//
// A group keeps what attention_mma.cuh keeps: the largest score of each row, the sum of
// exp(score - largest), and the sum of these times the values; weights are rounded to the type of the
// values and are the left operand of the second product as they lie in registers. The scores of a
// step are computed while the weights of the one before multiply its values. Where kLastKeys is not 0,
// a last step that has no more keys than that is as short.
//
// Shared memory holds panels of 64 columns, swizzled as hopper.cuh says: keys as operands that are
// contiguous along k, values as ones that are contiguous across. Columns from kHeadPad on are not
// there, and nothing reads them. Results leave by way of the place of the item's queries.

constexpr int kTileRows = 64 * kGroups;
constexpr int kLoaderThreads = 128;
constexpr int kPanelsK = (kHeadPad + 63) / 64, kPanelsV = (kValuePad + 63) / 64;
constexpr int kPanelsQ = kPanelsK > kPanelsV ? kPanelsK : kPanelsV;
constexpr int kQueryPanel = kTileRows * 128, kKeyPanel = kKeys * 128;
constexpr int kQueryBytes = kPanelsQ * kQueryPanel;
constexpr int kKeyBytes = kPanelsK * kKeyPanel, kValueBytes = kPanelsV * kKeyPanel;
static_assert(kKeys % 16 == 0 && kHeadPad % 16 == 0 && kValuePad % 16 == 0, "whole slices");

// Scores are compared as they come from the product, and scaled where exp takes them.
constexpr bool kScaleLate = !kAdjusts && kScale > 0.0f && kScale <= 1.0f;

struct Item {
  Rows queries, keys, values;
  bits16* out;  // the row of position 0
  long long out_row_stride, out_stride;
  int row0;  // the first of its rows
  int seen;  // keys that any of them sees
};

// Of a step of a number of keys.
template <int Keys>
using Scores = float[Keys / 2];  // [j * 4 + i]: row i / 2 * 8, key j * 8 + i % 2 of a thread
template <int Keys>
using Weights = unsigned[Keys / 4];  // [slice * 4 ...]: a left operand
using Means = float[kValuePad / 2];

// --- Rings ---

// A ring of `Places` places and its two rows of barriers.
template <int Places, int Bytes>
struct Ring {
  static constexpr int kBytes = Places * Bytes, kBarrierBytes = 16 * Places;
  unsigned char* data;
  unsigned barriers;
  int place = 0;
  unsigned parity = 0;

  __device__ __forceinline__ Ring(unsigned char* data, unsigned barriers)
      : data(data), barriers(barriers) {}
  __device__ __forceinline__ void init(int readers) const {
    for (int i = 0; i < Places; ++i) {
      Barrier{barriers + 8 * i}.init(kLoaderThreads);
      Barrier{barriers + 8 * (Places + i)}.init(readers);
    }
  }
  __device__ __forceinline__ Barrier full() const { return {barriers + 8 * place}; }
  __device__ __forceinline__ Barrier empty() const { return {barriers + 8 * (Places + place)}; }
  __device__ __forceinline__ unsigned char* at() const { return data + place * Bytes; }
  __device__ __forceinline__ unsigned address() const { return shared_address(data) + place * Bytes; }
  __device__ __forceinline__ void advance() {
    if (++place == Places) {
      place = 0;
      parity ^= 1;
    }
  }
  __device__ __forceinline__ void wait_full() const {
    full().wait(parity);
    see_copies();
  }
};

using QueryRing = Ring<kQueryStages, kQueryBytes>;
using KeyRing = Ring<kStages, kKeyBytes>;
using ValueRing = Ring<kStages, kValueBytes>;

// --- Loaders ---

// `Lines` rows from `first` on to panels; zeros where there are none. A thread keeps its place in the
// rows it brings; some threads bring nothing where rows are not a fraction of all threads.
template <int Columns, int Padded, int Lines>
__device__ __forceinline__ void load_lines(unsigned to, const Rows& from, int first, int thread) {
  constexpr int kChunks = Padded / 8, kAcross = kChunks == 6 ? 8 : kChunks;
  constexpr int kSkip = kLoaderThreads / kAcross;
  const int chunk = thread % kAcross, line0 = thread / kAcross;
  if ((kLoaderThreads % kAcross != 0 && line0 >= kSkip) || chunk >= kChunks) return;
  const int left = static_cast<int>(from.rows) - first;
  const bits16* next = from.data + (first + line0) * from.row_stride;
  const long long skip = kSkip * from.row_stride;
  const auto place = [&](int line) {
    return to + (chunk / 8 * Lines + line) * 128 + ((chunk % 8) ^ (line & 7)) * 16;
  };
  if (from.aligned) {
    const int columns = Columns - chunk * 8;
    const int bytes = columns >= 8 ? 16 : columns > 0 ? 2 * columns : 0;
    if (bytes > 0) next += chunk * 8;
#pragma unroll 4
    for (int i = 0; i < (Lines + kSkip - 1) / kSkip; ++i) {
      const int line = line0 + i * kSkip;
      if (Lines % kSkip == 0 || line < Lines)
        copy_async(place(line), next, line < left ? bytes : 0);
      next += skip;
    }
  } else {
#pragma unroll 1
    for (int line = line0; line < Lines; line += kSkip) {
      bits16* const to_line = static_cast<bits16*>(__cvta_shared_to_generic(place(line)));
      load_chunk<Columns>(to_line, line < left ? next : from.data, from.stride, chunk * 8,
                          line < left, false);
      next += skip;
    }
  }
}

// The next place of a ring.
template <int Columns, int Padded, int Lines, typename R>
__device__ __forceinline__ void fill(R& ring, const Rows& from, int first, int thread) {
  ring.empty().wait(ring.parity ^ 1);
  load_lines<Columns, Padded, Lines>(ring.address(), from, first, thread);
  if (from.aligned) {
    ring.full().arrive_with_copies();
  } else {
    see_copies();
    ring.full().arrive();
  }
  ring.advance();
}

// --- Softmax ---

// What a thread knows of its two rows; `total`: of its own columns alone.
struct RowSums {
  float largest[2], total[2];
};

// Masks and biases a step; `row` and `key` are those of the thread's first score. What so many scores load is under
// way at once: of all of them, it would not fit into registers beside scores, weights and means.
constexpr int kAdjustedAtOnce = kKeys / 2 + kKeys / 4 + kValuePad / 2 <= 64 ? 16 : 8;
template <int Count, typename Adjust>
__device__ __forceinline__ void adjust_scores(float (&scores)[Count], int row, int key, int keys,
                                              bool whole, const Adjust& adjust) {
  if constexpr (kAdjusts) {
#pragma unroll
    for (int first = 0; first < Count; first += kAdjustedAtOnce) {
      if (key + first / 4 * 8 < keys) {
#pragma unroll
        for (int e = first; e < first + kAdjustedAtOnce && e < Count; ++e)
          scores[e] = adjust(row + e % 4 / 2 * 8, key + e / 4 * 8 + e % 2, scores[e] * kScale);
      } else {
#pragma unroll
        for (int e = first; e < first + kAdjustedAtOnce && e < Count; ++e)
          scores[e] = minus_infinity();
      }
    }
  } else {
    if constexpr (!kScaleLate) {
#pragma unroll
      for (int e = 0; e < Count; ++e) scores[e] *= kScale;
    }
    if (whole) return;
    int seen[2];
#pragma unroll
    for (int h = 0; h < 2; ++h)
      seen[h] = (kCausal && row + h * 8 + 1 < keys ? row + h * 8 + 1 : keys) - key;
#pragma unroll
    for (int e = 0; e < Count; ++e) {
      if (e / 4 * 8 + e % 2 >= seen[e % 4 / 2]) scores[e] = minus_infinity();
    }
  }
}

// Scores become weights; `scale`: of the sums so far.
template <int Count>
__device__ __forceinline__ void weigh(float (&scores)[Count], RowSums& sums, float (&scale)[2]) {
  constexpr float kFactor = kScaleLate ? kScale : 1.0f;
  float largest[2][2];
#pragma unroll
  for (int h = 0; h < 2; ++h) largest[h][0] = largest[h][1] = sums.largest[h];
#pragma unroll
  for (int e = 0; e < Count; ++e)
    largest[e % 4 / 2][e % 2] = fmaxf(largest[e % 4 / 2][e % 2], scores[e]);
  float base[2], total[2][2] = {};
#pragma unroll
  for (int h = 0; h < 2; ++h) {
    float most = fmaxf(largest[h][0], largest[h][1]);
    most = fmaxf(most, __shfl_xor_sync(0xffffffffu, most, 1));
    most = fmaxf(most, __shfl_xor_sync(0xffffffffu, most, 2));
    base[h] = most == minus_infinity() ? 0.0f : most * kFactor;
    scale[h] = exp2_of(fmaf(sums.largest[h], kFactor, -base[h]));
    sums.largest[h] = most;
  }
#pragma unroll
  for (int e = 0; e < Count; ++e) {
    scores[e] = exp2_of(fmaf(scores[e], kFactor, -base[e % 4 / 2]));
    total[e % 4 / 2][e % 2] += scores[e];
  }
#pragma unroll
  for (int h = 0; h < 2; ++h) sums.total[h] = sums.total[h] * scale[h] + (total[h][0] + total[h][1]);
}

template <int Count>
__device__ __forceinline__ void pack(const float (&scores)[Count], unsigned (&weights)[Count / 2]) {
#pragma unroll
  for (int i = 0; i < Count / 2; ++i) weights[i] = pack16(scores[2 * i], scores[2 * i + 1]);
}

__device__ __forceinline__ void rescale(Means& means, const float (&scale)[2]) {
#pragma unroll
  for (int e = 0; e < kValuePad / 2; ++e) means[e] *= scale[e % 4 / 2];
}

// Whether a row of the warp has a larger score than before.
__device__ __forceinline__ bool grows(const float (&scale)[2]) {
  return __any_sync(0xffffffffu, scale[0] != 1.0f || scale[1] != 1.0f);
}

// --- Products ---

// The descriptor of a slice of 16 along k of an operand in panels.
template <int Panel>
__device__ __forceinline__ unsigned long long slice_of(unsigned long long operand, int slice) {
  return further(operand, slice / 4 * (Panel / 16) + slice % 4 * kSliceStep);
}

template <int Count>
__device__ __forceinline__ void begin_scores(float (&scores)[Count], unsigned queries,
                                             unsigned keys) {
  const unsigned long long a = matrix_descriptor(queries), b = matrix_descriptor(keys);
#pragma unroll
  for (int slice = 0; slice < kHeadPad / 16; ++slice)
    multiply_scores(scores, slice_of<kQueryPanel>(a, slice), slice_of<kKeyPanel>(b, slice),
                    slice > 0);
  commit_products();
}

template <int Count>
__device__ __forceinline__ void begin_means(Means& means, const unsigned (&weights)[Count],
                                            unsigned values) {
  const unsigned long long b = transposed_descriptor(values, kKeyPanel);
#pragma unroll
  for (int slice = 0; slice < Count / 4; ++slice)
    multiply_values(means, weights[4 * slice], weights[4 * slice + 1], weights[4 * slice + 2],
                    weights[4 * slice + 3], further(b, slice * kTransposedSliceStep));
  commit_products();
}

// --- A group of an item ---

template <typename Adjust>
__device__ __forceinline__ void attend(const Item& item, const Adjust& adjust, unsigned queries,
                                       KeyRing& keys, ValueRing& values, Means& means,
                                       RowSums& sums) {
  const int lane = static_cast<int>(threadIdx.x) % 32, warp = static_cast<int>(threadIdx.x) / 32;
  const int group = warp / 4;
  const bool leader = threadIdx.x % 128 == 0;
  const int key_count = static_cast<int>(item.keys.rows);
  const int group_row = item.row0 + group * 64;
  const int row = group_row + warp % 4 * 16 + lane / 4, column = lane % 4 * 2;
  const int unmasked = kCausal && group_row + 1 < key_count ? group_row + 1 : key_count;
  const int steps = (item.seen + kKeys - 1) / kKeys;
  float scale[2] = {1.0f, 1.0f};
  const auto soften = [&](auto& scores, int step) {
    const int key = step * kKeys, count = static_cast<int>(sizeof(scores)) / 2;
    adjust_scores(scores, row, key + column, key_count, key + count <= unmasked, adjust);
    weigh(scores, sums, scale);
  };
  const auto release = [&](auto& ring) {
    if (leader) ring.empty().arrive();
    ring.advance();
  };
  const auto begin_step = [&](auto& scores) {
    keys.wait_full();
    begin_products();
    begin_scores(scores, queries, keys.address());
  };
  const auto begin_values = [&](const auto& weights) {
    values.wait_full();
    begin_products();
    begin_means(means, weights, values.address());
  };
  // The scores of a step, and the means of the step before.
  const auto do_step = [&](auto& scores, const auto& weights, int step) {
    begin_step(scores);
    begin_values(weights);
    wait_products<1>();
    release(keys);
    soften(scores, step);
    wait_products<0>();
    release(values);
    if (grows(scale)) rescale(means, scale);
  };
  const auto finish = [&](const auto& weights) {
    begin_values(weights);
    wait_products<0>();
    release(values);
  };

  if (steps == 0) return;
  Scores<kKeys> scores;
  Weights<kKeys> weights;
  begin_step(scores);
  wait_products<0>();
  release(keys);
  soften(scores, 0);
  pack(scores, weights);
  const bool ends_early = kLastKeys > 0 && steps > 1 && item.seen - (steps - 1) * kKeys <= kLastKeys;
#pragma unroll 1
  for (int step = 1; step < steps - ends_early; ++step) {
    do_step(scores, weights, step);
    pack(scores, weights);
  }
  if constexpr (kLastKeys > 0) {
    if (ends_early) {
      constexpr int kCount = kLastKeys > 0 ? kLastKeys : kKeys;
      Scores<kCount> last_scores;
      Weights<kCount> last_weights;
      do_step(last_scores, weights, steps - 1);
      pack(last_scores, last_weights);
      finish(last_weights);
      return;
    }
  }
  finish(weights);
}

// A warp's rows by way of their place among the queries, so that they are stored in whole vectors.
__device__ __forceinline__ void store_rows(const Item& item, const Means& means,
                                           const RowSums& sums, unsigned char* queries) {
  const int lane = static_cast<int>(threadIdx.x) % 32, warp = static_cast<int>(threadIdx.x) / 32;
  unsigned char* const place = queries + warp * 16 * 128;
#pragma unroll
  for (int h = 0; h < 2; ++h) {
    float total = sums.total[h];
    total += __shfl_xor_sync(0xffffffffu, total, 1);
    total += __shfl_xor_sync(0xffffffffu, total, 2);
    const int line = lane / 4 + h * 8;
    const float factor = 1.0f / total;
#pragma unroll
    for (int e = 0; e < kValuePad / 8; ++e) {
      const float low = means[e * 4 + h * 2], high = means[e * 4 + h * 2 + 1];
      const bool none = !kNanRows && total == 0.0f;
      *reinterpret_cast<unsigned*>(place + e / 8 * kQueryPanel + line * 128 +
                                   ((e % 8) ^ (line & 7)) * 16 + lane % 4 * 4) =
          none ? 0 : pack16(low * factor, high * factor);
    }
  }
  __syncwarp();
  constexpr int kAcross = kValuePad / 8;
  const int row0 = item.row0 + warp * 16;
  const int rows = static_cast<int>(item.queries.rows) - row0;
  const bool aligned = item.out_stride == 1 && ((reinterpret_cast<unsigned long long>(item.out) |
                                                 2 * item.out_row_stride) & 15) == 0;
#pragma unroll 4
  for (int c = lane; c < 16 * kAcross; c += 32) {
    const int line = c / kAcross, chunk = c % kAcross;
    if (line >= rows || chunk * 8 >= kValueDim) continue;
    const unsigned char* const from =
        place + chunk / 8 * kQueryPanel + line * 128 + ((chunk % 8) ^ (line & 7)) * 16;
    bits16* const to = item.out + (row0 + line) * item.out_row_stride + chunk * 8 * item.out_stride;
    if (aligned && chunk * 8 + 8 <= kValueDim) {
      *reinterpret_cast<uint4*>(to) = *reinterpret_cast<const uint4*>(from);
    } else {
      for (int i = 0; i < 8 && chunk * 8 + i < kValueDim; ++i)
        to[i * item.out_stride] = reinterpret_cast<const bits16*>(from)[i];
    }
  }
}

// --- The whole ---

// The `round`-th item of this block; every other round goes the other way, so that blocks have alike
// sums of items that become shorter.
__device__ __forceinline__ unsigned item_number(unsigned round) {
  const unsigned place = kCausal && round % 2 == 1 ? gridDim.x - 1 - blockIdx.x : blockIdx.x;
  return round * gridDim.x + place;
}

// `with_item(number, use)` calls use(item, adjust).
template <typename WithItem>
__device__ __forceinline__ void attend_items(unsigned items, const WithItem& with_item) {
  extern __shared__ __align__(1024) unsigned char shared[];
  unsigned char* const base = shared + (1024 - shared_address(shared) % 1024) % 1024;
  unsigned char* const key_bytes = base + QueryRing::kBytes;
  unsigned char* const value_bytes = key_bytes + KeyRing::kBytes;
  const unsigned barriers = shared_address(value_bytes + ValueRing::kBytes);
  QueryRing queries(base, barriers);
  KeyRing keys(key_bytes, barriers + QueryRing::kBarrierBytes);
  ValueRing values(value_bytes, barriers + QueryRing::kBarrierBytes + KeyRing::kBarrierBytes);
  if (threadIdx.x == 0) {
    queries.init(4 * kGroups);
    keys.init(kGroups);
    values.init(kGroups);
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
  }
  __syncthreads();
  if (threadIdx.x >= 128 * kGroups) {
    keep_registers<kLoaderRegisters>();
    const int thread = static_cast<int>(threadIdx.x) - 128 * kGroups;
#pragma unroll 1
    for (unsigned round = 0; round * gridDim.x < items; ++round) {
      const unsigned number = item_number(round);
      if (number >= items) break;
      with_item(number, [&](const Item& item, const auto&) {
        fill<kHeadDim, kHeadPad, kTileRows>(queries, item.queries, item.row0, thread);
#pragma unroll 1
        for (int key = 0; key < item.seen; key += kKeys) {
          fill<kHeadDim, kHeadPad, kKeys>(keys, item.keys, key, thread);
          fill<kValueDim, kValuePad, kKeys>(values, item.values, key, thread);
        }
      });
    }
    wait_copies<0>();
  } else {
    take_registers<kReaderRegisters>();
    const int group = same_in_warp(static_cast<int>(threadIdx.x) / 128);
#pragma unroll 1
    for (unsigned round = 0; round * gridDim.x < items; ++round) {
      const unsigned number = item_number(round);
      if (number >= items) break;
      with_item(number, [&](const Item& item, const auto& adjust) {
        Means means = {};
        RowSums sums = {{minus_infinity(), minus_infinity()}, {0.0f, 0.0f}};
        queries.wait_full();
        attend(item, adjust, queries.address() + group * 64 * 128, keys, values, means, sums);
        store_rows(item, means, sums, queries.at());
        __syncwarp();
        if (threadIdx.x % 32 == 0) queries.empty().arrive();
        queries.advance();
      });
    }
  }
}
