// Products of f32 as three of TF32, on Hopper's tensor cores (wgmma); after tile_mma.cuh, whose loaders,
// fragments and results these are, and which says why three are enough.
//
// Groups of four warps have 64 rows of the tile each and all of its columns. A comes to registers and is split
// there. B is read by the instruction out of shared memory, in which it lies as the swizzle of 128
// bytes wants it (32 elements of a row, chunks exchanged by the row's number: swizzled<8>), so
// all threads split the step there: high in its place, low in a buffer beside the ring. While tensor
// cores multiply a step, the next one is split into the other of two such buffers. What they give for a step is
// added to the sums of before by the ordinary units.

static_assert(kTileK == 32 && kTf32 && kThreeProducts, "a row of a step is one swizzle");
static_assert(kWarpM == 16 && kWarpN == kTileN && kGroups == 1, "a group has all columns");
static_assert(kFormB != kAcross, "the instruction reads B along k alone");

// Elements of B as parts of 11 bits.
__device__ __forceinline__ void split_step(unsigned char* tile_b, unsigned char* low) {
#pragma unroll
  for (int i = 0; i < kBytesB / 16 / kThreads; ++i) {
    const int place = 16 * (static_cast<int>(threadIdx.x) + i * kThreads);
    uint4& whole = *reinterpret_cast<uint4*>(tile_b + place);
    unsigned rest[4] = {whole.x, whole.y, whole.z, whole.w}, high[4];
    split_tf32(high, rest);
    whole = make_uint4(high[0], high[1], high[2], high[3]);
    *reinterpret_cast<uint4*>(low + place) = make_uint4(rest[0], rest[1], rest[2], rest[3]);
  }
  see_copies();
}

// A step of a group; products are under way when it returns.
__device__ __forceinline__ void begin_step(float (&part)[kTileN / 2], unsigned (&high)[kSlices][4],
                                           unsigned (&low)[kSlices][4], unsigned tile_a, unsigned tile_b,
                                           unsigned low_b, int row) {
#pragma unroll
  for (int slice = 0; slice < kSlices; ++slice) {
    fragment_a<kFormA, kTileM>(low[slice], tile_a, row, slice);
    split_tf32(high[slice], low[slice]);
  }
  const unsigned long long b = matrix_descriptor(tile_b), rest = matrix_descriptor(low_b);
  begin_products();
#pragma unroll
  for (int slice = 0; slice < kSlices; ++slice) {
    const unsigned(&h)[4] = high[slice];
    const unsigned(&l)[4] = low[slice];
    multiply_group(part, l[0], l[1], l[2], l[3], b + slice * kSliceStep, slice > 0);
    multiply_group(part, h[0], h[1], h[2], h[3], rest + slice * kSliceStep, 1);
    multiply_group(part, h[0], h[1], h[2], h[3], b + slice * kSliceStep, 1);
  }
  commit_products();
}

// multiply_tile of tile_mma.cuh. Dynamic shared memory has the ring of kStages steps, and two steps of B.
template <typename LoadA, typename LoadB, typename A, typename B, typename R>
__device__ __forceinline__ void multiply_tile_by_groups(LoadA load_a, LoadB load_b, const A& a,
                                                        const B& b, const Steps& steps,
                                                        long long depth, long long row0,
                                                        long long column0, const R& result) {
  extern __shared__ __align__(128) unsigned char shared[];
  constexpr int kStageBytes = kBytesA + kBytesB;
  unsigned char* const ring = shared + (-shared_address(shared) & 1023);
  unsigned char* const lows = ring + kStages * kStageBytes;
  const WarpPlace place;
  WarpSums sums = {};
  int loaded = 0, stage_in = 0, stage_out = 0;

  const auto load = [&] {
    if (loaded < steps.count) {
      const long long rest = depth - steps.k0() - static_cast<long long>(loaded) * kTileK;
      const int left = rest < kTileK ? static_cast<int>(rest) : kTileK;
      unsigned char* const to = ring + stage_in * kStageBytes;
      load_a.load(to, left);
      load_b.load(to + kBytesA, left);
    }
    commit_copies();
    ++loaded;
    stage_in = stage_in + 1 == kStages ? 0 : stage_in + 1;
  };
#pragma unroll
  for (int step = 0; step < kStages - 1; ++step) load();
  wait_copies<kStages - 2>();
  __syncthreads();
  split_step(ring + kBytesA, lows);
  for (int step = 0; step < steps.count; ++step) {
    __syncthreads();  // the step is split
    unsigned char* const stage = ring + stage_out * kStageBytes;
    float part[kTileN / 2];
    unsigned high[kSlices][4], low[kSlices][4];
    begin_step(part, high, low, shared_address(stage), shared_address(stage + kBytesA),
               shared_address(lows + step % 2 * kBytesB), place.row);
    load();  // to the stage of the step before, which all have left
    stage_out = stage_out + 1 == kStages ? 0 : stage_out + 1;
    wait_copies<kStages - 2>();
    __syncthreads();  // the next step is there
    if (step + 1 < steps.count)
      split_step(ring + stage_out * kStageBytes + kBytesA, lows + (step + 1) % 2 * kBytesB);
    wait_products<0>();
#pragma unroll
    for (int i = 0; i < kTileN / 2; ++i) sums[0][i / 4][i % 4] += part[i];
  }
  wait_copies<0>();
  __syncthreads();
  float* tile = reinterpret_cast<float*>(shared);
  store_sums(sums, tile, place);
  if (__syncthreads_or(!are_exact(sums))) multiply_again(tile, a, b, steps, row0, column0);
  write_result<kThreads>(result, row0, column0, tile);
}
