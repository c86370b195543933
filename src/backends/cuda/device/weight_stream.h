// Weights that are copied to the GPU in every run, because the caller gave less memory than they take.
//
// They stay in pinned memory of the host. A run has a ring in its workspace: before a step, the weights
// of it that are not in the ring already are copied there, as one chunk, on a stream of their own. What
// a chunk overwrites has been read by then, because the copies wait for the last step that used it;
// apart from that they run ahead of the steps, so that the bus is busy while kernels compute. Where the
// chunks go depends on the program alone, and is planned once (StreamPlan).
//
//   copies   | chunk 0 | chunk 1 |   chunk 2   |        chunk 3 (waits for step 1) ...
//   steps              | step 0  | step 1 (chunk 1) | step 2 | step 5 (chunk 2) ...
//
// Nothing but events connects the two streams, so that a run can be captured into a graph.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <map>
#include <span>
#include <utility>
#include <vector>

#include "backends/cuda/device/gpu.h"
#include "engine/spec.h"
#include "support/status.h"

namespace kiln::cuda {

// A constant by where it lies among the weights of the file: offset and size. Buffers that share one
// share it everywhere.
using WeightPlace = std::pair<uint64_t, uint64_t>;

// Smaller ones are not worth a copy of their own and stay on the GPU.
inline constexpr uint64_t kSmallestStreamed = 16 << 10;

// Bytes of the weights that can be streamed, as they lie on a GPU.
uint64_t streamable_bytes(const engine::ProgramSpec& program);

// Which of them are streamed so that the others take at most `budget` bytes; evenly over the steps.
// None if all of them fit.
std::vector<WeightPlace> choose_streamed(const engine::ProgramSpec& program, uint64_t budget);

struct StreamPlan {
  struct Copy {
    WeightPlace place;
    uint64_t offset = 0;  // in the ring
  };
  // What is copied before a step.
  struct Chunk {
    size_t step = 0;
    int64_t after = -1;         // the step that the copies wait for; -1: none
    size_t begin = 0, end = 0;  // of `copies`
  };

  static StreamPlan make(const engine::ProgramSpec& program, std::span<const WeightPlace> streamed);

  // Where an operand of a step lies in the ring; -1 for one that is not streamed.
  int64_t offset(size_t step, size_t operand) const {
    return offsets.empty() ? -1 : offsets[step][operand];
  }

  // Whether something is copied for this step.
  bool has_chunk(size_t step) const {
    return std::ranges::binary_search(chunks, step, {}, &Chunk::step);
  }

  uint64_t ring_bytes = 0;
  std::vector<Copy> copies;
  std::vector<Chunk> chunks;                  // in the order of their steps
  std::vector<std::vector<int64_t>> offsets;  // by step and operand
};

// The copies of the runs of one bound program. Needs the context that is current in all calls.
class WeightStream {
 public:
  WeightStream() = default;
  WeightStream(const WeightStream&) = delete;
  WeightStream& operator=(const WeightStream&) = delete;

  // `host` is where each place lies in pinned memory. Both stay as long as this.
  Status open(const StreamPlan& plan, const std::map<WeightPlace, const std::byte*>& host);
  // When nothing of it is on its way any more.
  void close();

  // A run on `stream` with the ring at `ring`: begin(), for each step before() and after() it is
  // launched, and end() whether or not all of that went well: the ring is free then, in the order of
  // the stream.
  Status begin(api::CUstream stream, api::CUdeviceptr ring);
  Status before(size_t step, api::CUstream stream);
  Status after(size_t step, api::CUstream stream);
  Status end(api::CUstream stream);

 private:
  Status issue(size_t steps_launched);

  const StreamPlan* plan_ = nullptr;
  const std::map<WeightPlace, const std::byte*>* host_ = nullptr;
  api::CUstream copies_ = nullptr;
  api::CUevent begun_ = nullptr;
  std::vector<api::CUevent> arrived_;  // by chunk
  std::vector<api::CUevent> done_;     // by step, null for those that no chunk waits for
  api::CUdeviceptr ring_ = 0;          // of the current run
  size_t issued_ = 0, waited_ = 0;     // chunks of the current run
};

}  // namespace kiln::cuda
