#include "backends/cuda/device/weight_stream.h"

#include <algorithm>
#include <set>

#include "backends/cuda/call.h"
#include "support/aligned_buffer.h"

namespace kiln::cuda {
namespace {

using engine::BufferKind;
using engine::BufferSpec;
using engine::ProgramSpec;
using engine::StepSpec;

// Chunks may run ahead of the steps by as much, where weights are small.
constexpr uint64_t kLeastRing = uint64_t{32} << 20;

uint64_t bytes_on_gpu(const WeightPlace& place) {
  return align_up(place.second, kConstantAlignment);
}

WeightPlace place_of(const BufferSpec& buffer) { return {buffer.offset, buffer.constant_bytes}; }

// Those that steps use, each once, in the order of their first use.
std::vector<WeightPlace> streamable(const ProgramSpec& program) {
  std::vector<WeightPlace> places;
  std::set<WeightPlace> seen;
  for (const StepSpec& step : program.steps)
    for (const int32_t index : step.buffers) {
      const BufferSpec& buffer = program.buffers[static_cast<size_t>(index)];
      if (buffer.kind == BufferKind::Constant && buffer.constant_bytes >= kSmallestStreamed &&
          seen.insert(place_of(buffer)).second)
        places.push_back(place_of(buffer));
    }
  return places;
}

// Places in the ring for one step after another.
class Planner {
 public:
  Planner(const ProgramSpec& program, std::span<const WeightPlace> streamed)
      : program_(program), streamed_(streamed.begin(), streamed.end()) {}

  StreamPlan make() {
    uint64_t all = 0, most = 0;
    for (const StepSpec& step : program_.steps) most = std::max(most, bytes_of(places_of(step)));
    for (const WeightPlace& place : streamed_) all += bytes_on_gpu(place);
    // Of two chunks, one arrives while the other is in use.
    plan_.ring_bytes = std::max(2 * most, std::min(all, kLeastRing));
    plan_.offsets.resize(program_.steps.size());
    for (size_t i = 0; i < program_.steps.size(); ++i) add_step(i);
    return std::move(plan_);
  }

 private:
  struct Entry {
    uint64_t begin = 0, end = 0;
    size_t last_use = 0;
  };

  // The streamed operands of a step, each once.
  std::vector<WeightPlace> places_of(const StepSpec& step) const {
    std::vector<WeightPlace> places;
    for (const int32_t index : step.buffers) {
      const BufferSpec& buffer = program_.buffers[static_cast<size_t>(index)];
      if (buffer.kind != BufferKind::Constant || !streamed_.contains(place_of(buffer))) continue;
      if (std::ranges::find(places, place_of(buffer)) == places.end())
        places.push_back(place_of(buffer));
    }
    return places;
  }

  static uint64_t bytes_of(const std::vector<WeightPlace>& places) {
    uint64_t bytes = 0;
    for (const WeightPlace& place : places) bytes += bytes_on_gpu(place);
    return bytes;
  }

  void add_step(size_t index) {
    const StepSpec& step = program_.steps[index];
    const std::vector<WeightPlace> needed = places_of(step);
    std::vector<WeightPlace> missing;
    for (const WeightPlace& place : needed)
      if (!entries_.contains(place)) missing.push_back(place);
    if (!missing.empty()) {
      // The chunk must not lie on what the step finds in the ring; if it would, all comes anew.
      uint64_t begin = place_for(bytes_of(missing));
      if (overlaps(begin, bytes_of(missing), needed)) {
        missing = needed;
        begin = place_for(bytes_of(missing));
      }
      add_chunk(index, missing, begin);
    }
    for (const WeightPlace& place : needed) entries_.at(place).last_use = index;
    for (const int32_t buffer : step.buffers) {
      const BufferSpec& spec = program_.buffers[static_cast<size_t>(buffer)];
      const auto found =
          spec.kind == BufferKind::Constant ? entries_.find(place_of(spec)) : entries_.end();
      const bool is_streamed = found != entries_.end();
      plan_.offsets[index].push_back(is_streamed ? static_cast<int64_t>(found->second.begin) : -1);
    }
  }

  // Behind the chunk before, or at the start where that does not fit.
  uint64_t place_for(uint64_t bytes) const { return next_ + bytes <= plan_.ring_bytes ? next_ : 0; }

  bool overlaps(uint64_t begin, uint64_t bytes, const std::vector<WeightPlace>& places) const {
    return std::ranges::any_of(places, [&](const WeightPlace& place) {
      const auto found = entries_.find(place);
      return found != entries_.end() && found->second.begin < begin + bytes &&
             begin < found->second.end;
    });
  }

  void add_chunk(size_t step, const std::vector<WeightPlace>& places, uint64_t begin) {
    const uint64_t end = begin + bytes_of(places);
    StreamPlan::Chunk chunk{step, -1, plan_.copies.size(), plan_.copies.size() + places.size()};
    std::erase_if(entries_, [&](const auto& item) {
      const auto& [place, entry] = item;
      const bool is_lost = (entry.begin < end && begin < entry.end) ||
                           std::ranges::find(places, place) != places.end();
      if (is_lost) freed_.push_back(entry);
      return is_lost;
    });
    for (Entry& entry : freed_) {
      if (entry.begin >= end || begin >= entry.end) continue;
      chunk.after = std::max(chunk.after, static_cast<int64_t>(entry.last_use));
      // What the chunk covers is its own from now on.
      if (begin <= entry.begin) entry.begin = std::min(end, entry.end);
      if (entry.end <= end) entry.end = std::max(begin, entry.begin);
    }
    std::erase_if(freed_, [](const Entry& entry) { return entry.begin >= entry.end; });
    for (const WeightPlace& place : places) {
      plan_.copies.push_back({place, begin});
      entries_[place] = {begin, begin + bytes_on_gpu(place), step};
      begin += bytes_on_gpu(place);
    }
    plan_.chunks.push_back(chunk);
    next_ = end;
  }

  const ProgramSpec& program_;
  const std::set<WeightPlace> streamed_;
  StreamPlan plan_;
  std::map<WeightPlace, Entry> entries_;  // what the ring holds
  std::vector<Entry> freed_;              // what it held where nothing lies now
  uint64_t next_ = 0;
};

}  // namespace

uint64_t streamable_bytes(const ProgramSpec& program) {
  uint64_t bytes = 0;
  for (const WeightPlace& place : streamable(program)) bytes += bytes_on_gpu(place);
  return bytes;
}

std::vector<WeightPlace> choose_streamed(const ProgramSpec& program, uint64_t budget) {
  const std::vector<WeightPlace> places = streamable(program);
  uint64_t total = 0;
  for (const WeightPlace& place : places) total += bytes_on_gpu(place);
  if (budget >= total) return {};
  // Every weight adds the budget's share of it to what may stay, so that those which stay are spread
  // over the program, and the bus is never idle for long.
  std::vector<WeightPlace> streamed;
  const double share = static_cast<double>(budget) / static_cast<double>(total);
  double allowed = 0;
  uint64_t left = budget;
  for (const WeightPlace& place : places) {
    const uint64_t bytes = bytes_on_gpu(place);
    allowed += share * static_cast<double>(bytes);
    if (static_cast<double>(bytes) > allowed || bytes > left) {
      streamed.push_back(place);
      continue;
    }
    allowed -= static_cast<double>(bytes);
    left -= bytes;
  }
  // What is left over is for the first that fit.
  std::erase_if(streamed, [&](const WeightPlace& place) {
    if (bytes_on_gpu(place) > left) return false;
    left -= bytes_on_gpu(place);
    return true;
  });
  return streamed;
}

StreamPlan StreamPlan::make(const ProgramSpec& program, std::span<const WeightPlace> streamed) {
  return streamed.empty() ? StreamPlan() : Planner(program, streamed).make();
}

Status WeightStream::open(const StreamPlan& plan,
                          const std::map<WeightPlace, const std::byte*>& host) {
  if (plan.chunks.empty()) return Status();
  const auto make = [](api::CUevent& event) {
    return driver().cuEventCreate(&event, api::kNoTiming);
  };
  KILN_RETURN_IF_CUDA_ERROR(driver().cuStreamCreate(&copies_, api::kNonBlocking),
                            "making a stream");
  KILN_RETURN_IF_CUDA_ERROR(make(begun_), "making an event");
  arrived_.resize(plan.chunks.size(), nullptr);
  done_.resize(plan.offsets.size(), nullptr);
  for (size_t i = 0; i < arrived_.size(); ++i) {
    KILN_RETURN_IF_CUDA_ERROR(make(arrived_[i]), "making an event");
    const int64_t after = plan.chunks[i].after;
    if (after >= 0 && done_[static_cast<size_t>(after)] == nullptr)
      KILN_RETURN_IF_CUDA_ERROR(make(done_[static_cast<size_t>(after)]), "making an event");
  }
  plan_ = &plan;
  host_ = &host;
  return Status();
}

void WeightStream::close() {
  for (const auto& events : {std::span(&begun_, 1), std::span(arrived_), std::span(done_)})
    for (api::CUevent event : events)
      if (event != nullptr) driver().cuEventDestroy_v2(event);
  if (copies_ != nullptr) driver().cuStreamDestroy_v2(copies_);
}

Status WeightStream::begin(api::CUstream stream, api::CUdeviceptr ring) {
  if (plan_ == nullptr) return Status();
  ring_ = ring;
  issued_ = waited_ = 0;
  KILN_RETURN_IF_CUDA_ERROR(driver().cuEventRecord(begun_, stream), "streaming weights");
  KILN_RETURN_IF_CUDA_ERROR(driver().cuStreamWaitEvent(copies_, begun_, 0), "streaming weights");
  return issue(0);
}

// An event has to be recorded before it is waited for: chunks are queued once the step that they wait
// for is.
Status WeightStream::issue(size_t steps_launched) {
  for (; issued_ < plan_->chunks.size(); ++issued_) {
    const StreamPlan::Chunk& chunk = plan_->chunks[issued_];
    if (chunk.after >= static_cast<int64_t>(steps_launched)) return Status();
    if (chunk.after >= 0)
      KILN_RETURN_IF_CUDA_ERROR(
          driver().cuStreamWaitEvent(copies_, done_[static_cast<size_t>(chunk.after)], 0),
          "streaming weights");
    for (size_t i = chunk.begin; i < chunk.end; ++i) {
      const StreamPlan::Copy& copy = plan_->copies[i];
      KILN_RETURN_IF_CUDA_ERROR(
          driver().cuMemcpyHtoDAsync_v2(ring_ + copy.offset, host_->at(copy.place),
                                        copy.place.second, copies_),
          "streaming weights");
    }
    KILN_RETURN_IF_CUDA_ERROR(driver().cuEventRecord(arrived_[issued_], copies_),
                              "streaming weights");
  }
  return Status();
}

Status WeightStream::before(size_t step, api::CUstream stream) {
  if (plan_ == nullptr || waited_ == plan_->chunks.size() || plan_->chunks[waited_].step != step)
    return Status();
  KILN_RETURN_IF_CUDA_ERROR(driver().cuStreamWaitEvent(stream, arrived_[waited_], 0),
                            "streaming weights");
  ++waited_;
  return Status();
}

Status WeightStream::after(size_t step, api::CUstream stream) {
  if (plan_ == nullptr) return Status();
  if (done_[step] != nullptr)
    KILN_RETURN_IF_CUDA_ERROR(driver().cuEventRecord(done_[step], stream), "streaming weights");
  return issue(step + 1);
}

// Where all went well the stream has waited for the last copy already.
Status WeightStream::end(api::CUstream stream) {
  if (plan_ == nullptr || waited_ == plan_->chunks.size()) return Status();
  KILN_RETURN_IF_CUDA_ERROR(driver().cuEventRecord(begun_, copies_), "streaming weights");
  KILN_RETURN_IF_CUDA_ERROR(driver().cuStreamWaitEvent(stream, begun_, 0), "streaming weights");
  return Status();
}

}  // namespace kiln::cuda
