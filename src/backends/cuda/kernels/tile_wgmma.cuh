// Products of f16, bf16, f32 (as TF32, rounded by the copy engine), f8e4m3, or u8 times i8 on Hopper: the copy engine fills a
// ring of stages, groups of four warps multiply out of it (wgmma). Both operands are contiguous along k.
//
// A block is one producer group, of which a single thread works, and kGroups groups of consumers. A
// stage holds kTileK elements along k (128 or 64 bytes) of kTileM rows of A and of kTileN rows of B, which
// `Boxes` asks for: of two matrices (matrix_wgmma.cuh), of images and filters (pixels_wgmma.cuh).
// Its barrier
// `full` counts the bytes that arrive; `empty` counts the consumers that have read it. A consumer
// keeps one step in flight: it waits for the step before, and frees its stage.
//
// The blocks stay: each takes every gridDim.x-th tile, and the producer runs ahead into the next tile
// while consumers finish theirs. With kPingPong each consumer group has whole tiles of its own and
// the groups take turns multiplying, so that one stores while another multiplies, and, where there are more
// than two, others wait for what their epilogues load; otherwise all groups share a tile, which suits results
// that are a single wave of tiles.
//
// Sums of f8e4m3 have about 14 bits on tensor cores. With kAddApart, those of a step (128 along k) are added to the
// sums of the tile by the ordinary units, in f32.
//
// With kCluster > 1 a block has one tile, and the blocks of a cluster share k (tile_result.cuh adds
// their sums up): for results of few tiles.

constexpr int kGroupRows = 64 * kRowBlocks;  // of a consumer group
constexpr int kRowBytes = kTileK * kElementBytes;
constexpr int kStageBytes = (kTileM + kTileN) * kRowBytes;
constexpr int kThreads = 128 * (kGroups + 1);
constexpr int kSharers = kPingPong ? 1 : kGroups;  // groups that read a stage
constexpr int kTurns = kPingPong ? kGroups : 1;    // groups that have tiles of their own
static_assert(kTileM == kGroupRows * kSharers, "groups share the rows of a tile");
static_assert(kRowBytes == 128 || kRowBytes == 64, "a row of a stage is one swizzle");

using GroupSums = Acc[kRowBlocks][kTileN / 2];

struct Ring {
  unsigned stages;    // kStages of them, 1024-byte aligned
  unsigned barriers;  // full, then empty
  __device__ __forceinline__ unsigned stage(int i) const { return stages + i * kStageBytes; }
  __device__ __forceinline__ Barrier full(int i) const { return {barriers + 8 * i}; }
  __device__ __forceinline__ Barrier empty(int i) const { return {barriers + 8 * (kStages + i)}; }
};

// A place in the ring: the stage, and how often the ring has gone round.
struct RingPlace {
  int stage = 0;
  unsigned parity = 0;
  __device__ __forceinline__ void advance() {
    if (++stage == kStages) {
      stage = 0;
      parity ^= 1;
    }
  }
  __device__ __forceinline__ void advance(int steps) {
    const unsigned to = static_cast<unsigned>(stage + steps);
    stage = static_cast<int>(to % kStages);
    parity ^= to / kStages % 2;
  }
};

// The first steps of a tile, before the kernel in front has ended: what does not depend on it.
template <typename Boxes>
__device__ __forceinline__ void fill_early(const Ring& ring, const Boxes& boxes,
                                           const TilePlace& tile, int first, int count) {
  const typename Boxes::Tile origin = boxes.tile(tile.row0, tile.column0);
  for (int step = 0; step < count && step < kStages; ++step) {
    ring.full(step).expect(kStageBytes);
    boxes.load_right(ring.stage(step) + kTileM * kRowBytes, origin, first + step, ring.full(step));
  }
}

// The steps of a tile, from the step `first` on. `early` of them have their part of B, or it is under
// way.
template <typename Boxes>
__device__ __forceinline__ void fill(const Ring& ring, RingPlace& place, const Boxes& boxes,
                                     const TilePlace& tile, int first, int count, int early) {
  const typename Boxes::Tile origin = boxes.tile(tile.row0, tile.column0);
  for (int step = 0; step < count; ++step) {
    const Barrier full = ring.full(place.stage);
    const unsigned to = ring.stage(place.stage);
    if (step >= early) {
      ring.empty(place.stage).wait(place.parity ^ 1);
      full.expect(kStageBytes);
      boxes.load_right(to + kTileM * kRowBytes, origin, first + step, full);
    }
    boxes.load_left(to, origin, first + step, full);
    place.advance();
  }
}

__device__ __forceinline__ void clear(GroupSums& sums) {
#pragma unroll
  for (int m = 0; m < kRowBlocks; ++m) {
#pragma unroll
    for (int i = 0; i < kTileN / 2; ++i) sums[m][i] = 0;
  }
}

// Operands of a group in the first stage; those in others are further on.
struct StageOperands {
  unsigned long long a, b;
  __device__ __forceinline__ StageOperands(const Ring& ring, int row)
      : a(matrix_descriptor<kRowBytes>(ring.stage(0) + row * kRowBytes)),
        b(matrix_descriptor<kRowBytes>(ring.stage(0) + kTileM * kRowBytes)) {}
};

// The products of one step, whose sums are replaced at its first slice unless `accumulate`.
__device__ __forceinline__ void multiply_stage(GroupSums& sums, const StageOperands& first, int stage,
                                               bool accumulate) {
  const unsigned at = static_cast<unsigned>(stage) * (kStageBytes / 16);
  begin_products();
#pragma unroll
  for (int slice = 0; slice < kRowBytes / 32; ++slice) {
#pragma unroll
    for (int m = 0; m < kRowBlocks; ++m)
      multiply_group(sums[m], further(first.a, at + m * (64 * kRowBytes / 16) + slice * kSliceStep),
                     further(first.b, at + slice * kSliceStep), accumulate || slice > 0);
  }
  commit_products();
}

// --- Sums that are added apart ---

// A step is multiplied at once, or in two halves of the rows or columns of the group where all of its sums would not
// fit into registers beside those of the tile.
constexpr bool kHalves = kRowBlocks * kTileN > 192;
constexpr int kPartRows = kHalves && kRowBlocks == 2 ? 1 : kRowBlocks;
constexpr int kPartN = kHalves && kRowBlocks == 1 ? kTileN / 2 : kTileN;
using PartSums = Acc[kPartRows][kPartN / 2];

template <int Half, typename Part>
__device__ __forceinline__ void multiply_half(Part& part, const StageOperands& first, int stage) {
  constexpr int kFirstRow = kPartRows < kRowBlocks ? Half * 64 : 0;
  constexpr int kFirstColumn = kPartN < kTileN ? Half * kPartN : 0;
  const unsigned at = static_cast<unsigned>(stage) * (kStageBytes / 16);
  const unsigned a = at + kFirstRow * kRowBytes / 16, b = at + kFirstColumn * kRowBytes / 16;
  begin_products();
#pragma unroll
  for (int slice = 0; slice < kRowBytes / 32; ++slice) {
#pragma unroll
    for (int m = 0; m < kPartRows; ++m)
      multiply_part(part[m], further(first.a, a + m * (64 * kRowBytes / 16) + slice * kSliceStep),
                    further(first.b, b + slice * kSliceStep), slice > 0);
  }
  commit_products();
}

template <int Half, typename Sums, typename Part>
__device__ __forceinline__ void add_half(Sums& sums, Part& part) {
  constexpr int kRow = kPartRows < kRowBlocks ? Half : 0;
  constexpr int kFirst = kPartN < kTileN ? Half * kPartN / 2 : 0;
#pragma unroll
  for (int m = 0; m < kPartRows; ++m) {
#pragma unroll
    for (int i = 0; i < kPartN / 2; ++i) {
      asm volatile("" : "+f"(part[m][i])::"memory");  // not before the wait for them
      sums[kRow + m][kFirst + i] += part[m][i];
    }
  }
}

// Other groups multiply while this one adds.
template <typename Sums, typename Issued>
__device__ __forceinline__ void multiply_steps_apart(Sums& sums, const Ring& ring, RingPlace& place,
                                                     int row, int count, const Issued& issued) {
  const bool leader = threadIdx.x % 128 == 0;
  const StageOperands operands(ring, row);
  clear(sums);
#pragma unroll 1
  for (int step = 0; step < count; ++step) {
    PartSums part;
    ring.full(place.stage).wait(place.parity);
    multiply_half<0>(part, operands, place.stage);
    wait_products<0>();
    if constexpr (kHalves) {
      add_half<0>(sums, part);
      multiply_half<1>(part, operands, place.stage);
      wait_products<0>();
    }
    if (leader) ring.empty(place.stage).arrive();
    add_half<kHalves ? 1 : 0>(sums, part);
    place.advance();
  }
  issued();
}

// All steps of a tile; `row` of the tile is the first of the group.
template <typename Issued>
__device__ __forceinline__ void multiply_steps(GroupSums& sums, const Ring& ring, RingPlace& place,
                                               int row, int count, const Issued& issued) {
  if constexpr (kAddApart) return multiply_steps_apart(sums, ring, place, row, count, issued);
  const bool leader = threadIdx.x % 128 == 0;
  const StageOperands operands(ring, row);
  int before = 0;
#pragma unroll 1
  for (int step = 0; step < count; ++step) {
    ring.full(place.stage).wait(place.parity);
    multiply_stage(sums, operands, place.stage, step > 0);
    if (step > 0) {
      wait_products<1>();
      if (leader) ring.empty(before).arrive();
    }
    before = place.stage;
    place.advance();
  }
  issued();
  wait_products<0>();
  if (leader && count > 0) ring.empty(before).arrive();
}

// --- Results ---

// How a warp goes through its rows of a tile: 32 columns of 16 rows at a time, of which a lane has a
// vector of neighbours in each of two rows.
constexpr int kChunkColumns = 32;
constexpr int kChunkVectors = 2;
constexpr int kColumnChunks = kResultN / kChunkColumns;
constexpr int kChunks = kRowBlocks * kColumnChunks;
static_assert(kOneTile || kResultN % kChunkColumns == 0, "whole chunks");

// What the epilogue loads. The ring keeps the way from the second-level cache busy, and a load of a
// consumer waits behind all that it asked for: thousands of cycles. So loads are asked for before the
// tile is multiplied. What each row has of its own waits in registers (kHoldLoads, where these are
// enough), or else is fetched a chunk ahead; what all rows share is brought to the first-level cache.
template <typename R>
struct EarlyLoads {
  static constexpr int kHeld = kHoldLoads ? kChunks : 1;
  typename R::Loaded loaded[kHeld][kChunkVectors];

  __device__ __forceinline__ void fetch(const R& result, int row0, int column0, int chunk,
                                        int held) {
    const int lane = static_cast<int>(threadIdx.x) % 32;
    const int column = column0 + chunk % kColumnChunks * kChunkColumns + lane % 4 * 8;
    const int row = row0 + chunk / kColumnChunks * 64 + lane / 4;
#pragma unroll
    for (int v = 0; v < kChunkVectors; ++v) {
      if (row + v * 8 < static_cast<int>(result.m) && column + 8 <= static_cast<int>(result.n))
        result.fetch(row + v * 8, column, loaded[held][v]);
    }
  }
  __device__ __forceinline__ void begin(const R& result, int row0, int column0, float* own) {
    const int lane = static_cast<int>(threadIdx.x) % 32;
    if (lane * 8 < kResultN && column0 + lane * 8 < result.n)
      result.touch(column0 + lane * 8, shared_address(own + lane));
    if constexpr (kHoldLoads) {
#pragma unroll
      for (int chunk = 0; chunk < kChunks; ++chunk) fetch(result, row0, column0, chunk, chunk);
    }
  }
};

// A warp turns its sums from fragments into vectors of neighbours, which lanes exchange. All chunks are
// written out, since sums are registers, which have no index: picking those of a chunk takes longer
// than fetching the instructions.
template <typename R>
__device__ __forceinline__ void write_sums(const R& result, const GroupSums& sums,
                                           EarlyLoads<R>& early, int row0, int column0) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int across = lane % 4 * 8, down = lane / 4;
  const int rows = static_cast<int>(result.m) - row0, columns = static_cast<int>(result.n) - column0;
  asm volatile("cp.async.wait_all;" ::: "memory");
  if constexpr (!kHoldLoads) early.fetch(result, row0, column0, 0, 0);
#pragma unroll
  for (int chunk = 0; chunk < kChunks; ++chunk) {
    const auto& fragment = sums[chunk / kColumnChunks];
    const int first = chunk % kColumnChunks * (kChunkColumns / 2);
    typename R::Loaded loaded[kChunkVectors];
#pragma unroll
    for (int v = 0; v < kChunkVectors; ++v) loaded[v] = early.loaded[kHoldLoads ? chunk : 0][v];
    if (!kHoldLoads && chunk + 1 < kChunks) early.fetch(result, row0, column0, chunk + 1, 0);
    const int place = chunk % kColumnChunks * kChunkColumns + across;
    const int left = columns - place;
    typename R::Columns same;
    if (left >= kVector) result.fetch_columns(column0 + place, same);
#pragma unroll
    for (int v = 0; v < kChunkVectors; ++v) {
      VectorSums own;
#pragma unroll
      for (int s = 0; s < kSums; ++s) {
#pragma unroll
        for (int i = 0; i < kVector; ++i)
          own.of[s].at[i] = fragment[s * (kResultN / 2) + first + i / 2 * 4 + v * 2 + i % 2];
        gather_vector(own.of[s].at);
      }
      const int row = chunk / kColumnChunks * 64 + down + v * 8;
      if (row >= rows || left <= 0) continue;
      if (left >= kVector) {
        result.finish(row0 + row, column0 + place, own, loaded[v], same);
      } else if constexpr (!kWholeVectors) {
#pragma unroll
        for (int e = 0; e < kVector; ++e) {
          ColumnSums one;
#pragma unroll
          for (int s = 0; s < kSums; ++s) one.of[s] = own.of[s].at[e];
          if (e < left) result.finish_one(row0 + row, column0 + place + e, one);
        }
      }
    }
  }
}

// The sums of a group as rows of the tile in shared memory.
__device__ __forceinline__ void store_sums(const GroupSums& sums, Acc* tile, int row) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
#pragma unroll
  for (int m = 0; m < kRowBlocks; ++m) {
#pragma unroll
    for (int i = 0; i < kTileN / 2; i += 2) {
      const int line = row + m * 64 + lane / 4 + i / 2 % 2 * 8, column = i / 4 * 8 + lane % 4 * 2;
      *reinterpret_cast<SumPair*>(tile + line * kResultPitch + column) = {{sums[m][i], sums[m][i + 1]}};
    }
  }
}

// --- The whole ---

// `wait` comes back when the kernel in front has ended.
template <typename Boxes, typename R, typename W>
__device__ __forceinline__ void multiply_tiles(const Boxes& boxes, long long depth,
                                               const R& result, const W& wait) {
  extern __shared__ __align__(1024) unsigned char shared[];
  const unsigned base = (shared_address(shared) + 1023) / 1024 * 1024;
  unsigned char* const ring_bytes = shared + (base - shared_address(shared));
  constexpr int kRingBytes = kStages * kStageBytes;
  const Ring ring{base, base + kRingBytes};
  const int group = same_in_warp(static_cast<int>(threadIdx.x) / 128) - 1;  // -1: the producer
  if (threadIdx.x == 0) {
    boxes.prefetch();
    for (int i = 0; i < kStages; ++i) {
      ring.full(i).init(1);
      ring.empty(i).init(kSharers);
    }
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
    asm volatile("fence.proxy.async;" ::: "memory");
  }
  __syncthreads();

  const int steps = static_cast<int>((depth + kTileK - 1) / kTileK);
  RingPlace place;
  if constexpr (kOneTile) {
    const int part = (steps + kCluster - 1) / kCluster;
    const int first = part * static_cast<int>(same_in_warp(cluster_rank()));
    const int count = steps - first < part ? (steps > first ? steps - first : 0) : part;
    const TilePlace tile(result.m, result.n, blockIdx.x / kCluster);
    Acc* const sums_tile = reinterpret_cast<Acc*>(ring_bytes);
    if (group < 0) {
      const bool works = threadIdx.x == 0;
      if (works && kEarlyB) fill_early(ring, boxes, tile, first, count);
      wait();
      if (works) fill(ring, place, boxes, tile, first, count, kEarlyB ? kStages : 0);
      __syncthreads();
    } else {
      wait();
      GroupSums sums;
      multiply_steps(sums, ring, place, group * kGroupRows, count, [] {});
      if (count == 0) clear(sums);
      // Every stage has been read, by all groups: the tile takes their place. The producer has no part in that; it is
      // at the barrier because racecheck takes what is written behind one of some threads for a race.
      __syncthreads();
      store_sums(sums, sums_tile, group * kGroupRows + static_cast<int>(threadIdx.x) / 32 % 4 * 16);
    }
    __syncthreads();
    write_result<kThreads>(result, tile.row0, tile.column0, sums_tile);
  } else {
    const unsigned tiles = TilePlace::count(result.m, result.n);
    if (group < 0) {
      keep_registers<kProducerRegisters>();
      if (threadIdx.x == 0 && kEarlyB && blockIdx.x < tiles)
        fill_early(ring, boxes, TilePlace(result.m, result.n, blockIdx.x), 0, steps);
      wait();
      if (threadIdx.x == 0) {
        for (unsigned t = blockIdx.x; t < tiles; t += gridDim.x)
          fill(ring, place, boxes, TilePlace(result.m, result.n, t), 0, steps,
               kEarlyB && t == blockIdx.x ? kStages : 0);
      }
    } else {
      take_registers<kConsumerRegisters>();
      wait();
      float* const own = reinterpret_cast<float*>(ring_bytes + kRingBytes + 16 * kStages) +
                         (group * 4 + static_cast<int>(threadIdx.x) / 32 % 4) * 32;
      unsigned number = kPingPong ? group : 0;  // of the tile among those of this block
      if (kPingPong) place.advance(group * steps);
      for (unsigned t = blockIdx.x + number * gridDim.x; t < tiles; t += kTurns * gridDim.x) {
        const TilePlace tile(result.m, result.n, t);
        const int row = kPingPong ? 0 : group * kGroupRows;
        const int warp_row = static_cast<int>(tile.row0) + row + static_cast<int>(threadIdx.x) / 32 % 4 * 16;
        GroupSums sums;
        EarlyLoads<R> early;
        early.begin(result, warp_row, static_cast<int>(tile.column0), own);
        if (kPingPong && number > 0) sync_threads(1 + group, 256);
        multiply_steps(sums, ring, place, row, steps, [&] {
          if (kPingPong && t + gridDim.x < tiles)
            arrive_threads(1 + (group + 1 < kTurns ? group + 1 : 0), 256);
        });
        write_sums(result, sums, early, warp_row, static_cast<int>(tile.column0));
        if (kPingPong) place.advance((kTurns - 1) * steps);
        number += kTurns;
      }
    }
  }
}
