#include "torch/engine_modes.h"

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <functional>
#include <mutex>
#include <optional>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

namespace kiln::torch_op {
namespace {

// What the calls of one engine share.
struct EngineModes {
  EngineModes(uint32_t flags, std::optional<uint64_t> weight_budget)
      : flags(flags), weight_budget(weight_budget) {}

  const uint32_t flags;
  const std::optional<uint64_t> weight_budget;
  std::mutex mutex;
  std::vector<OwnedTensor> outputs;  // for the next call; empty while another call has them
  const void* stream = nullptr;      // that their memory is for
  std::string profile;               // of the last call, as JSON
};

struct Table {
  std::mutex mutex;
  std::unordered_map<const void*, std::shared_ptr<EngineModes>> modes;
  std::atomic<size_t> size = 0;
};

// Never destroyed: operators may run while the process exits.
Table& table() {
  static auto* instance = new Table;
  return *instance;
}

std::shared_ptr<EngineModes> find_modes(const void* data) {
  if (table().size.load(std::memory_order_acquire) == 0) return nullptr;
  std::lock_guard lock(table().mutex);
  const auto found = table().modes.find(data);
  return found == table().modes.end() ? nullptr : found->second;
}

bool has_strides_of(const kiln_tensor& tensor, const kiln_tensor& wanted) {
  for (int32_t axis = 0; axis < tensor.rank; ++axis) {
    if (tensor.shape[axis] > 1 && tensor.strides[axis] != wanted.strides[axis]) return false;
  }
  return true;
}

// Whether a tensor can be `output`.
bool fits(const kiln_tensor& kept, const kiln_tensor& output) {
  return kept.device.type == output.device.type && kept.device.index == output.device.index &&
         kept.dtype == output.dtype && kept.rank == output.rank &&
         std::equal(kept.shape, kept.shape + kept.rank, output.shape) &&
         has_strides_of(kept, output);
}

// Another one like it, in memory of its own.
OwnedTensor new_like(const OwnedTensor& tensor) {
  const kiln_tensor like = view(tensor.get(), {"output"});
  const auto rank = static_cast<size_t>(like.rank);
  return new_tensor(like.dtype, {like.shape, rank}, {like.strides, rank}, like.device);
}

class ModalRun : public RunHooks {
 public:
  explicit ModalRun(std::shared_ptr<EngineModes> modes) : modes_(std::move(modes)) {}

  std::optional<uint64_t> weight_budget() const override { return modes_->weight_budget; }

  // Sessions are shared with calls in other modes, so this is said before every run.
  void before_run(kiln_session* session) override {
    check(kiln_session_enable_profiling(session, (modes_->flags & kProfile) != 0));
    std::lock_guard lock(modes_->mutex);
    kept_ = std::exchange(modes_->outputs, {});
    stream_ = modes_->stream;
  }

  OwnedTensor take_output(size_t index, const kiln_tensor& output, const void* stream) override {
    const bool is_there = index < kept_.size() && stream == stream_;
    if (!is_there || !fits(view(kept_[index].get(), {"output"}), output)) return nullptr;
    return std::move(kept_[index]);
  }

  void after_run(kiln_session* session, std::span<const OwnedTensor> outputs,
                 const void* stream) override {
    std::string profile = modes_->flags & kProfile ? take_profile(session) : std::string();
    std::vector<OwnedTensor> next;
    if (modes_->flags & kPreAllocate)
      for (const OwnedTensor& output : outputs) next.push_back(new_like(output));
    std::lock_guard lock(modes_->mutex);
    modes_->profile = std::move(profile);
    modes_->outputs = std::move(next);
    modes_->stream = stream;
  }

 private:
  static std::string take_profile(kiln_session* session) {
    kiln_bytes* json = nullptr;
    check(kiln_session_profile(session, &json));
    std::string text(static_cast<const char*>(kiln_bytes_data(json)), kiln_bytes_size(json));
    kiln_bytes_destroy(json);
    check(kiln_session_enable_profiling(session, 0));
    return text;
  }

  std::shared_ptr<EngineModes> modes_;
  std::vector<OwnedTensor> kept_;
  const void* stream_ = nullptr;
};

// Python's lock keeps threads from changing the modes of one engine at once.
void put(const void* data, uint32_t flags, std::optional<uint64_t> weight_budget) {
  std::lock_guard lock(table().mutex);
  if (flags == 0 && !weight_budget) {
    table().modes.erase(data);
  } else {
    table().modes[data] = std::make_shared<EngineModes>(flags, weight_budget);
  }
  table().size.store(table().modes.size(), std::memory_order_release);
}

}  // namespace

std::unique_ptr<RunHooks> modal_run(const void* data) {
  std::shared_ptr<EngineModes> modes = find_modes(data);
  return modes == nullptr ? nullptr : std::make_unique<ModalRun>(std::move(modes));
}

void set_modes(const void* data, uint32_t flags) {
  const auto modes = find_modes(data);
  put(data, flags, modes == nullptr ? std::nullopt : modes->weight_budget);
}

void set_weight_budget(const void* data, std::optional<uint64_t> bytes) {
  const auto modes = find_modes(data);
  put(data, modes == nullptr ? 0 : modes->flags, bytes);
}

}  // namespace kiln::torch_op

#define KILN_TORCH_EXPORT extern "C" __attribute__((visibility("default")))

// Functions for Python, which finds engines by the address of their bytes.
KILN_TORCH_EXPORT void kiln_torch_set_engine_modes(const void* data, uint32_t flags) {
  kiln::torch_op::set_modes(data, flags);
}

KILN_TORCH_EXPORT uint32_t kiln_torch_engine_modes(const void* data) {
  const auto modes = kiln::torch_op::find_modes(data);
  return modes == nullptr ? 0 : modes->flags;
}

// A negative number of bytes: no limit.
KILN_TORCH_EXPORT void kiln_torch_set_weight_budget(const void* data, int64_t bytes) {
  kiln::torch_op::set_weight_budget(
      data, bytes < 0 ? std::nullopt : std::optional(static_cast<uint64_t>(bytes)));
}

// -1: no limit.
KILN_TORCH_EXPORT int64_t kiln_torch_weight_budget(const void* data) {
  const auto modes = kiln::torch_op::find_modes(data);
  return modes == nullptr || !modes->weight_budget ? -1
                                                   : static_cast<int64_t>(*modes->weight_budget);
}

// Copies the profile of the last call, JSON of kiln_session_profile, and gives its length, 0 if
// there is none. Nothing is copied where `capacity` is less than that.
KILN_TORCH_EXPORT size_t kiln_torch_engine_profile(const void* data, char* buffer,
                                                   size_t capacity) {
  const auto modes = kiln::torch_op::find_modes(data);
  if (modes == nullptr) return 0;
  std::lock_guard lock(modes->mutex);
  const std::string& text = modes->profile;
  if (text.size() <= capacity) std::ranges::copy(text, buffer);
  return text.size();
}
