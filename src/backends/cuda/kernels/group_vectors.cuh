// Results of tile_wgmma.cuh as vectors of eight neighbours, which lanes exchange while they are sums.

constexpr int kPatchBytes = 0;  // of shared memory, of a warp

// A warp turns its sums from fragments into vectors of neighbours, which lanes exchange. All chunks are
// written out, since sums are registers, which have no index: picking those of a chunk takes longer
// than fetching the instructions.
template <typename R>
__device__ __forceinline__ void write_sums(const R& result, const GroupSums& sums,
                                           EarlyLoads<R>& early, int row0, int column0,
                                           unsigned /*patch*/) {
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
