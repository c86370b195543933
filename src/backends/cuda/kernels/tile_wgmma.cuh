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
// With kInTurns there are two sums of each element, and a step adds to one of them: the first kFirstSteps to the first,
// the others to the second. A stage has the right operand of one.
//
// What becomes of sums where blocks stay is in group_vectors.cuh, or, for results of 16 bits, group_pairs.cuh.
//
// With kCluster > 1 a block has one tile, and the blocks of a cluster share k (tile_result.cuh adds
// their sums up): for results of few tiles.

constexpr int kRowBytes = kTileK * kElementBytes;
constexpr int kStepN = kInTurns ? kResultN : kTileN;  // columns of B in a stage
constexpr int kStageBytes = (kTileM + kStepN) * kRowBytes;
constexpr int kThreads = 128 * (kGroups + 1);
constexpr int kSharers = kPingPong ? 1 : kGroups;  // groups that read a stage
constexpr int kTurns = kPingPong ? kGroups : 1;    // groups that have tiles of their own
static_assert(kTileM == kGroupRows * kSharers, "groups share the rows of a tile");
static_assert(kRowBytes == 128 || kRowBytes == 64, "a row of a stage is one swizzle");

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

// Those that a step adds to, of 64 rows: all, or the first or second half.
template <int Turn>
__device__ __forceinline__ auto sums_of_turn(Acc (&sums)[kTileN / 2]) -> Acc (&)[kStepN / 2] {
  return *reinterpret_cast<Acc(*)[kStepN / 2]>(&sums[Turn * (kStepN / 2)]);
}

// The products of one step, whose sums are replaced at its first slice unless `accumulate`.
template <int Turn>
__device__ __forceinline__ void multiply_stage(GroupSums& sums, const StageOperands& first, int stage,
                                               bool accumulate) {
  const unsigned at = static_cast<unsigned>(stage) * (kStageBytes / 16);
  begin_products();
#pragma unroll
  for (int slice = 0; slice < kRowBytes / 32; ++slice) {
#pragma unroll
    for (int m = 0; m < kRowBlocks; ++m)
      multiply_group(sums_of_turn<Turn>(sums[m]), further(first.a, at + m * (64 * kRowBytes / 16) + slice * kSliceStep),
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

// What is computed of sums is computed behind the wait for them.
__device__ __forceinline__ void keep_behind(float& sum) { asm volatile("" : "+f"(sum)::"memory"); }
__device__ __forceinline__ void keep_behind(int& sum) { asm volatile("" : "+r"(sum)::"memory"); }
__device__ __forceinline__ void keep_behind(GroupSums& sums) {
#pragma unroll
  for (int m = 0; m < kRowBlocks; ++m) {
#pragma unroll
    for (int i = 0; i < kTileN / 2; ++i) {
      keep_behind(sums[m][i]);
    }
  }
}

// The steps of a turn, or all; `issued` is called before the last of them has ended. The first is written out: sums that
// come out of a loop that might have no steps are copied behind it, which ends what is under way.
template <int Turn, typename Issued>
__device__ __forceinline__ void multiply_turn(GroupSums& sums, const Ring& ring, RingPlace& place,
                                              const StageOperands& operands, int count,
                                              const Issued& issued) {
  const bool leader = threadIdx.x % 128 == 0;
  if (kOneTile && count <= 0) return issued();
  ring.full(place.stage).wait(place.parity);
  multiply_stage<Turn>(sums, operands, place.stage, false);
  int before = place.stage;
  place.advance();
#pragma unroll 1
  for (int step = 1; step < count; ++step) {
    ring.full(place.stage).wait(place.parity);
    multiply_stage<Turn>(sums, operands, place.stage, true);
    wait_products<1>();
    if (leader) ring.empty(before).arrive();
    before = place.stage;
    place.advance();
  }
  issued();
  wait_products<0>();
  keep_behind(sums);
  if (leader) ring.empty(before).arrive();
}

// `count` steps of a tile, from the step `first` on; `row` of the tile is the first of the group.
template <typename Issued>
__device__ __forceinline__ void multiply_steps(GroupSums& sums, const Ring& ring, RingPlace& place,
                                               int row, int first, int count,
                                               const Issued& issued) {
  if constexpr (kAddApart) return multiply_steps_apart(sums, ring, place, row, count, issued);
  const StageOperands operands(ring, row);
  if constexpr (kInTurns) {
    const int left = kFirstSteps - first;
    const int early = left < 0 ? 0 : left < count ? left : count;
    if (kOneTile && (early == 0 || early == count)) clear(sums);  // one of them has no steps here
    multiply_turn<0>(sums, ring, place, operands, early, [] {});
    multiply_turn<1>(sums, ring, place, operands, count - early, issued);
  } else {
    multiply_turn<0>(sums, ring, place, operands, count, issued);
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
  const Ring ring{base, base + kRingBytes + kPatchBytes * 4 * kGroups};
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
      multiply_steps(sums, ring, place, group * kGroupRows, first, count, [] {});
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
      const int warp = group * 4 + static_cast<int>(threadIdx.x) / 32 % 4;
      const int behind = kRingBytes + kPatchBytes * 4 * kGroups + 16 * kStages;
      float* const own = reinterpret_cast<float*>(ring_bytes + behind) + warp * 32;
      const unsigned patch = base + kRingBytes + warp * kPatchBytes;
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
        multiply_steps(sums, ring, place, row, 0, steps, [&] {
          if (kPingPong && t + gridDim.x < tiles)
            arrive_threads(1 + (group + 1 < kTurns ? group + 1 : 0), 256);
        });
        write_sums(result, sums, early, warp_row, static_cast<int>(tile.column0), patch);
        if (kPingPong) place.advance((kTurns - 1) * steps);
        number += kTurns;
      }
    }
  }
}
