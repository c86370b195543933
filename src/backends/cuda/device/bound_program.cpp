#include "backends/cuda/device/bound_program.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "backends/cuda/device/graph_cache.h"
#include "backends/cuda/device/tensor_map.h"
#include "support/aligned_buffer.h"

namespace kiln::cuda {
namespace {

using engine::BufferKind;
using engine::BufferSpec;
using engine::Slot;
using engine::StepSpec;

int64_t at(const BindRequest& request, Slot slot) {
  return request.sizes[static_cast<size_t>(slot)];
}

// A launch but for the stream.
struct Launch {
  api::CUfunction function = nullptr;  // null: an empty grid, nothing to do
  api::CUlaunchConfig config;
  void** arguments = nullptr;  // into CudaProgram::arguments_
  int64_t blocks = 0;
};

// Words in pinned memory that kernels set bits of when a check fails; the device writes to it, and
// only then.
class FailedWords {
 public:
  FailedWords() = default;
  FailedWords(const FailedWords&) = delete;
  FailedWords& operator=(const FailedWords&) = delete;

  Status allocate(size_t count) {
    void* memory = nullptr;
    KILN_RETURN_IF_CUDA_ERROR(driver().cuMemHostAlloc(&memory, count * sizeof(uint64_t),
                                                      api::kHostPortable | api::kHostMapped),
                              "allocating pinned memory for checks");
    words_ = static_cast<uint64_t*>(memory);
    std::fill_n(words_, count, 0);
    return Status();
  }
  // Needs the context that was current then, so that it is not left to a destructor.
  void release() {
    if (words_ != nullptr) driver().cuMemFreeHost(const_cast<uint64_t*>(words_));
    words_ = nullptr;
  }
  // With unified addresses this is where the device finds it too.
  volatile uint64_t* at(size_t index) { return words_ + index; }

 private:
  volatile uint64_t* words_ = nullptr;
};

class CudaProgram : public BoundProgram {
 public:
  explicit CudaProgram(std::shared_ptr<const LoadedProgram> program)
      : program_(std::move(program)) {}

  ~CudaProgram() override {
    const CurrentContext current(program_->gpu());
    // Graphs and pinned memory go when nothing of this program is on its way any more.
    const OutsideCapture outside;
    if (last_stream_used_) driver().cuStreamSynchronize(last_stream_);
    graphs_.clear();
    failed_.release();
    weights_.close();
    if (capture_stream_ != nullptr) driver().cuStreamDestroy_v2(capture_stream_);
  }

  Status bind(const BindRequest& request) {
    const CurrentContext current(program_->gpu());
    const OutsideCapture outside;
    find_memory(request);
    find_scratch(request);
    KILN_RETURN_IF_ERROR(bind_steps(request));
    return weights_.open(program_->stream_plan(), program_->streamed());
  }

  RunOutcome run(const RunRequest& request) override {
    const CurrentContext current(program_->gpu());
    if (RunOutcome earlier = take_failure(); earlier.failed_checks != 0) return earlier;
    if (is_cancelled(request.cancel)) return cancelled_outcome();
    const auto stream = static_cast<api::CUstream>(request.stream);
    if (Status placed = find_addresses(request, stream); !placed.ok()) return {std::move(placed)};
    last_stream_ = stream;
    last_stream_used_ = true;
    if (request.profile != nullptr) return {run_profiled(stream, *request.profile)};
    return {run_on(stream)};
  }

  RunOutcome synchronize() override {
    const CurrentContext current(program_->gpu());
    if (last_stream_used_) {
      const api::CUresult result = driver().cuStreamSynchronize(last_stream_);
      if (result != api::kSuccess) return {error_status(result, "a run")};
    }
    return take_failure();
  }

 private:
  const engine::ProgramSpec& spec() const { return program_->spec(); }

  // A pointer that depends on the run: arguments_values_[position].
  struct Use {
    size_t position = 0;
    size_t buffer = 0;
  };
  // One to a weight in the ring.
  struct RingUse {
    size_t position = 0;
    uint64_t offset = 0;
  };

  // An input that the copy engine reads.
  struct AlignedInput {
    size_t buffer = 0;
    uint64_t bytes = 0;
    uint64_t offset = 0;  // of its copy in the workspace
  };
  struct MapUse {
    TensorMap map;
    size_t buffer = 0;
    int64_t ring_offset = -1;  // of a weight that is streamed
    int32_t kernel = 0;
    api::CUtensorMap* place = nullptr;  // into maps_
    uint64_t address = 0;               // that the map is of; 0: not made yet
  };

  void find_memory(const BindRequest& request) {
    memory_.resize(spec().buffers.size(), 0);
    offsets_.assign(request.offsets.begin(), request.offsets.end());
    for (size_t i = 0; i < memory_.size(); ++i)
      if (spec().buffers[i].kind == BufferKind::Constant) memory_[i] = program_->constant(i);
  }

  // Behind the temporaries: the scratch, one for all steps, since they follow each other on the
  // stream; then copies of inputs that are mapped and may begin anywhere; then the ring of weights.
  void find_scratch(const BindRequest& request) {
    scratch_offset_ = align_up(request.temporary_bytes, kAlignment);
    uint64_t scratch = 0;
    for (const StepSpec& step : spec().steps)
      if (step.scratch_bytes != -1)
        scratch = std::max(scratch, static_cast<uint64_t>(at(request, step.scratch_bytes)));
    workspace_bytes_ = scratch_offset_ + align_up(scratch, kAlignment);
    std::vector<bool> is_mapped(spec().buffers.size(), false);
    for (const StepSpec& step : spec().steps)
      for (const engine::TensorMapSpec& map : step.launch.tensor_maps)
        is_mapped[static_cast<size_t>(step.buffers[static_cast<size_t>(map.buffer)])] = true;
    for (size_t i = 0; i < is_mapped.size(); ++i) {
      const BufferSpec& buffer = spec().buffers[i];
      if (!is_mapped[i] || buffer.kind != BufferKind::Input) continue;
      const auto bytes = static_cast<uint64_t>(at(request, buffer.bytes));
      aligned_inputs_.push_back({i, bytes, workspace_bytes_});
      workspace_bytes_ += align_up(bytes, kAlignment);
    }
    ring_offset_ = workspace_bytes_;
    workspace_bytes_ += program_->stream_plan().ring_bytes;
  }

  Status bind_steps(const BindRequest& request) {
    size_t values = 0, checked = 0, maps = 0;
    for (const StepSpec& step : spec().steps) {
      values += step.buffers.size() + step.params.size() + 2;  // scratch, failed
      checked += step.checks.empty() ? 0 : 1;
      maps += step.launch.tensor_maps.size();
    }
    // None grows from here on: steps point into them.
    values_.reserve(values);
    maps_.resize(maps);
    arguments_.reserve(values + maps);
    if (checked != 0) KILN_RETURN_IF_ERROR(failed_.allocate(checked));
    for (size_t i = 0; i < spec().steps.size(); ++i) KILN_RETURN_IF_ERROR(bind_step(i, request));
    return Status();
  }

  Status bind_step(size_t index, const BindRequest& request) {
    const StepSpec& step = spec().steps[index];
    Launch& launch = launches_.emplace_back();
    launch.arguments = arguments_.data() + arguments_.size();
    for (size_t k = 0; k < step.buffers.size(); ++k) {
      const auto buffer = static_cast<size_t>(step.buffers[k]);
      if (const int64_t offset = program_->stream_plan().offset(index, k); offset >= 0)
        ring_uses_.push_back({values_.size(), static_cast<uint64_t>(offset)});
      else if (spec().buffers[buffer].kind != BufferKind::Constant)
        uses_.push_back({values_.size(), buffer});
      add_argument(memory_[buffer]);
    }
    for (const Slot slot : step.params) add_argument(static_cast<uint64_t>(at(request, slot)));
    if (step.scratch_bytes != -1) {
      scratch_uses_.push_back(values_.size());
      add_argument(0);
    }
    if (!step.checks.empty()) {
      add_argument(reinterpret_cast<uint64_t>(failed_.at(checked_steps_.size())));
      checked_steps_.push_back(index);
    }
    KILN_RETURN_IF_ERROR(set_grid(step, request, launch));
    // Such a launch would read weights before it waits for what is in front of it.
    if (program_->stream_plan().has_chunk(index)) launch.config.num_attributes = 0;
    add_tensor_maps(index, request, launch);
    return Status();
  }

  // Those of an empty grid are never looked at, and may have sizes of 0, which no map can have.
  void add_tensor_maps(size_t index, const BindRequest& request, const Launch& launch) {
    const StepSpec& step = spec().steps[index];
    for (const engine::TensorMapSpec& map : step.launch.tensor_maps) {
      const auto operand = static_cast<size_t>(map.buffer);
      const auto buffer = static_cast<size_t>(step.buffers[operand]);
      const int64_t ring_offset = program_->stream_plan().offset(index, operand);
      api::CUtensorMap& place = maps_[arguments_.size() - values_.size()];
      arguments_.push_back(&place);
      if (launch.function != nullptr)
        map_uses_.push_back({TensorMap(map, request), buffer, ring_offset, step.kernel, &place, 0});
    }
  }

  void add_argument(uint64_t value) {
    values_.push_back(value);
    arguments_.push_back(&values_.back());
  }

  Status set_grid(const StepSpec& step, const BindRequest& request, Launch& launch) {
    const std::string& name = spec().kernels[static_cast<size_t>(step.kernel)].name;
    constexpr int64_t kMostBlocks[] = {std::numeric_limits<int32_t>::max(), 65535, 65535};
    unsigned* const grid[] = {&launch.config.grid_x, &launch.config.grid_y, &launch.config.grid_z};
    launch.blocks = 1;
    for (size_t i = 0; i < step.launch.grid.size(); ++i) {
      const int64_t size = at(request, step.launch.grid[i]);
      if (size < 0 || size > kMostBlocks[i])
        return Status(StatusCode::OutOfRange,
                      "[" + name + "] needs a grid of " + std::to_string(size) +
                          " blocks for these input shapes, expected at most " +
                          std::to_string(kMostBlocks[i]));
      *grid[i] = static_cast<unsigned>(size);
      launch.blocks *= size;
    }
    unsigned* const block[] = {&launch.config.block_x, &launch.config.block_y,
                               &launch.config.block_z};
    for (size_t i = 0; i < step.launch.block.size(); ++i)
      *block[i] =
          static_cast<unsigned>(std::clamp<int64_t>(at(request, step.launch.block[i]), 0, 4096));
    if (launch.blocks == 0) return Status();
    launch.function = program_->function(static_cast<size_t>(step.kernel));
    if (step.launch.programmatic && driver_version() >= kProgrammaticGraphs) {
      launch.config.attributes = &programmatic_;
      launch.config.num_attributes = 1;
    }
    return step.launch.shared_bytes == -1
               ? Status()
               : set_shared(name, at(request, step.launch.shared_bytes), launch);
  }

  Status set_shared(const std::string& name, int64_t bytes, Launch& launch) {
    constexpr int64_t kMostWithoutAsking = 48 << 10, kMost = 1 << 20;
    if (bytes < 0 || bytes > kMost)
      return Status(StatusCode::InvalidEngine, "damaged engine: [" + name + "] asks for " +
                                                   std::to_string(bytes) +
                                                   " bytes of shared memory");
    launch.config.shared_bytes = static_cast<unsigned>(bytes);
    if (bytes > kMostWithoutAsking)
      KILN_RETURN_IF_CUDA_ERROR(
          driver().cuFuncSetAttribute(launch.function, api::kMaxDynamicShared,
                                      static_cast<int>(bytes)),
          "asking for " + std::to_string(bytes) + " bytes of shared memory for " + name);
    return Status();
  }

  // All that runs differ by. An input that cannot be mapped where it is is copied, which graphs of a run
  // see as its place.
  Status find_addresses(const RunRequest& request, api::CUstream stream) {
    addresses_.clear();
    for (void* data : request.inputs) addresses_.push_back(reinterpret_cast<uint64_t>(data));
    for (void* data : request.outputs) addresses_.push_back(reinterpret_cast<uint64_t>(data));
    addresses_.push_back(reinterpret_cast<uint64_t>(request.workspace));
    num_inputs_ = request.inputs.size();
    for (const AlignedInput& input : aligned_inputs_) {
      uint64_t& address = addresses_[static_cast<size_t>(spec().buffers[input.buffer].index)];
      if (address % kTensorMapAlignment == 0 || input.bytes == 0) continue;
      const uint64_t copy = addresses_.back() + input.offset;
      KILN_RETURN_IF_CUDA_ERROR(driver().cuMemcpyDtoDAsync_v2(copy, address, input.bytes, stream),
                                "copying an input");
      address = copy;
    }
    return Status();
  }

  // Gives all launches their operands, which a graph has already.
  Status place() {
    const uint64_t workspace = addresses_.back();
    for (size_t i = 0; i < memory_.size(); ++i) {
      const BufferSpec& buffer = spec().buffers[i];
      const auto index = static_cast<size_t>(buffer.index);
      if (buffer.kind == BufferKind::Input) memory_[i] = addresses_[index];
      if (buffer.kind == BufferKind::Output) memory_[i] = addresses_[num_inputs_ + index];
      if (buffer.kind == BufferKind::Temporary) memory_[i] = workspace + offsets_[i];
    }
    for (const Use& use : uses_) values_[use.position] = memory_[use.buffer];
    for (const size_t position : scratch_uses_) values_[position] = workspace + scratch_offset_;
    ring_ = workspace + ring_offset_;
    for (const RingUse& use : ring_uses_) values_[use.position] = ring_ + use.offset;
    for (MapUse& use : map_uses_) {
      const uint64_t address = use.ring_offset < 0 ? memory_[use.buffer]
                                                   : ring_ + static_cast<uint64_t>(use.ring_offset);
      if (use.address == address) continue;
      KILN_RETURN_IF_ERROR(use.map.encode(
          address, spec().kernels[static_cast<size_t>(use.kernel)].name, *use.place));
      use.address = address;
    }
    return Status();
  }

  Status run_on(api::CUstream stream) {
    bool is_new = false;
    int capturing = api::kCaptureNone;
    driver().cuStreamIsCapturing(stream, &capturing);
    if (launches_.size() < kFewestForGraph || capturing != api::kCaptureNone)
      return launch_all(stream);
    GraphCache::Entry& entry = graphs_.find(addresses_, is_new);
    if (is_new) return launch_all(stream);
    if (entry.graph == nullptr) KILN_RETURN_IF_ERROR(capture(entry));
    KILN_RETURN_IF_CUDA_ERROR(driver().cuGraphLaunch(entry.graph, stream), "launching a run");
    return Status();
  }

  Status capture(GraphCache::Entry& entry) {
    if (capture_stream_ == nullptr)
      KILN_RETURN_IF_CUDA_ERROR(driver().cuStreamCreate(&capture_stream_, api::kNonBlocking),
                                "making a stream");
    KILN_RETURN_IF_CUDA_ERROR(
        driver().cuStreamBeginCapture_v2(capture_stream_, api::kCaptureThreadLocal),
        "capturing a run");
    const Status launched = launch_all(capture_stream_);
    api::CUgraph graph = nullptr;
    const api::CUresult ended = driver().cuStreamEndCapture(capture_stream_, &graph);
    if (!launched.ok()) return launched;
    if (ended != api::kSuccess) return error_status(ended, "capturing a run");
    const api::CUresult made = driver().cuGraphInstantiateWithFlags(&entry.graph, graph, 0);
    driver().cuGraphDestroy(graph);
    return made == api::kSuccess ? Status() : error_status(made, "making a graph of a run");
  }

  Status launch_all(api::CUstream stream) {
    KILN_RETURN_IF_ERROR(place());
    Status status = weights_.begin(stream, ring_);
    for (size_t i = 0; i < launches_.size() && status.ok(); ++i) status = launch(i, stream);
    Status ended = weights_.end(stream);
    return status.ok() ? std::move(ended) : std::move(status);
  }

  Status launch(size_t index, api::CUstream stream) {
    Launch& launch = launches_[index];
    KILN_RETURN_IF_ERROR(weights_.before(index, stream));
    if (launch.function == nullptr) return weights_.after(index, stream);
    launch.config.stream = stream;
    KILN_RETURN_IF_CUDA_ERROR(
        driver().cuLaunchKernelEx(&launch.config, launch.function, launch.arguments, nullptr),
        "the launch of " + spec().kernels[static_cast<size_t>(spec().steps[index].kernel)].name);
    return weights_.after(index, stream);
  }

  Status run_profiled(api::CUstream stream, std::vector<StepTime>& profile) {
    std::vector<api::CUevent> events(launches_.size() + 1, nullptr);
    Status status = time_steps(stream, events, profile);
    for (api::CUevent event : events)
      if (event != nullptr) driver().cuEventDestroy_v2(event);
    return status;
  }

  Status time_steps(api::CUstream stream, std::vector<api::CUevent>& events,
                    std::vector<StepTime>& profile) {
    KILN_RETURN_IF_ERROR(place());
    for (api::CUevent& event : events)
      KILN_RETURN_IF_CUDA_ERROR(driver().cuEventCreate(&event, 0), "making an event");
    KILN_RETURN_IF_CUDA_ERROR(driver().cuEventRecord(events[0], stream), "timing a run");
    Status status = weights_.begin(stream, ring_);
    for (size_t i = 0; i < launches_.size() && status.ok(); ++i) {
      status = launch(i, stream);
      driver().cuEventRecord(events[i + 1], stream);
    }
    if (Status ended = weights_.end(stream); status.ok()) status = std::move(ended);
    KILN_RETURN_IF_ERROR(std::move(status));
    KILN_RETURN_IF_CUDA_ERROR(driver().cuEventSynchronize(events.back()), "a run");
    for (size_t i = 0; i < launches_.size(); ++i) {
      float milliseconds = 0;
      driver().cuEventElapsedTime(&milliseconds, events[i], events[i + 1]);
      const api::CUlaunchConfig& config = launches_[i].config;
      profile.push_back({launches_[i].blocks,
                         static_cast<int32_t>(config.block_x * config.block_y * config.block_z),
                         static_cast<int64_t>(1e6 * static_cast<double>(milliseconds))});
    }
    return Status();
  }

  // The first step of an earlier run whose checks failed; all words are cleared.
  RunOutcome take_failure() {
    RunOutcome outcome;
    for (size_t i = 0; i < checked_steps_.size(); ++i) {
      volatile uint64_t* word = failed_.at(i);
      if (*word == 0) continue;
      if (outcome.failed_checks == 0) {
        outcome.step = checked_steps_[i];
        outcome.failed_checks = *word;
      }
      *word = 0;
    }
    return outcome;
  }

  static constexpr uint64_t kAlignment = 256;
  // Drivers from CUDA 12.3 on capture programmatic launches; kernels run without them too.
  static constexpr int kProgrammaticGraphs = 12030;
  // A launch costs what a graph of it would.
  static constexpr size_t kFewestForGraph = 2;

  const std::shared_ptr<const LoadedProgram> program_;
  std::vector<uint64_t> memory_;   // where each buffer lies in the current run
  std::vector<uint64_t> offsets_;  // of temporaries, by buffer
  uint64_t scratch_offset_ = 0, ring_offset_ = 0;
  uint64_t ring_ = 0;             // of the current run
  std::vector<uint64_t> values_;  // of all arguments of all steps
  std::vector<void*> arguments_;  // to values_, pairwise
  std::vector<Use> uses_;
  std::vector<size_t> scratch_uses_;
  std::vector<RingUse> ring_uses_;
  std::vector<AlignedInput> aligned_inputs_;
  std::vector<api::CUtensorMap> maps_;
  std::vector<MapUse> map_uses_;
  api::CUlaunchAttribute programmatic_ = {// of launches that wait by themselves
                                          .id = api::kProgrammaticSerialization,
                                          .pad = {},
                                          .value = {.bytes = {1}}};
  std::vector<Launch> launches_;       // by step
  std::vector<size_t> checked_steps_;  // by word of failed_
  FailedWords failed_;
  WeightStream weights_;
  std::vector<uint64_t> addresses_;  // of the current run: inputs, outputs, workspace
  size_t num_inputs_ = 0;            // of them
  GraphCache graphs_;
  api::CUstream capture_stream_ = nullptr, last_stream_ = nullptr;
  bool last_stream_used_ = false;
};

}  // namespace

Result<std::unique_ptr<BoundProgram>> bind_program(std::shared_ptr<const LoadedProgram> program,
                                                   const BindRequest& request) {
  auto bound = std::make_unique<CudaProgram>(std::move(program));
  KILN_RETURN_IF_ERROR(bound->bind(request));
  return std::unique_ptr<BoundProgram>(std::move(bound));
}

}  // namespace kiln::cuda
