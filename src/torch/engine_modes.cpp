#include "torch/engine_modes.h"

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <functional>
#include <unordered_map>
#include <utility>

#include "torch/engine_cache.h"

namespace kiln::torch_op {
namespace {

using ::torch::stable::Tensor;

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

struct MemoryRange {
  const std::byte* begin;
  const std::byte* end;
};

MemoryRange range_of(const kiln_tensor& tensor, int64_t element_bytes) {
  int64_t last = 0;
  for (int32_t axis = 0; axis < tensor.rank; ++axis) {
    if (tensor.shape[axis] == 0) {
      return {nullptr, nullptr};
    }
    last += (tensor.shape[axis] - 1) * tensor.strides[axis];
  }
  const auto* begin = static_cast<const std::byte*>(tensor.data);
  return {begin, begin + (last + 1) * element_bytes};
}

int64_t bytes_of(kiln_dtype dtype) {
  switch (dtype) {
    case KILN_F64:
    case KILN_I64:
      return 8;
    case KILN_F32:
    case KILN_I32:
      return 4;
    case KILN_F16:
    case KILN_BF16:
    case KILN_I16:
      return 2;
    default:
      return 1;
  }
}

}  // namespace

std::vector<Tensor> EngineModes::take_outputs() {
  std::lock_guard lock(mutex_);
  return std::exchange(outputs_, {});
}

// Sessions are shared with calls of other modes, so this is said before every run.
void EngineModes::before_run(kiln_session* session) const {
  check(kiln_session_enable_profiling(session, (flags_ & kProfile) != 0));
}

void EngineModes::after_run(kiln_session* session, const std::vector<Tensor>& outputs) {
  std::string profile;
  if (flags_ & kProfile) {
    kiln_bytes* json = nullptr;
    check(kiln_session_profile(session, &json));
    profile.assign(static_cast<const char*>(kiln_bytes_data(json)), kiln_bytes_size(json));
    kiln_bytes_destroy(json);
    check(kiln_session_enable_profiling(session, 0));
  }
  std::lock_guard lock(mutex_);
  profile_ = std::move(profile);
  if (flags_ & kReuseOutputs) {
    outputs_ = outputs;
  }
}

std::string EngineModes::profile() const {
  std::lock_guard lock(mutex_);
  return profile_;
}

std::shared_ptr<EngineModes> find_modes(const void* data) {
  if (table().size.load(std::memory_order_acquire) == 0) {
    return nullptr;
  }
  std::lock_guard lock(table().mutex);
  const auto found = table().modes.find(data);
  return found == table().modes.end() ? nullptr : found->second;
}

void set_modes(const void* data, uint32_t flags) {
  std::lock_guard lock(table().mutex);
  if (flags == 0) {
    table().modes.erase(data);
  } else {
    table().modes[data] = std::make_shared<EngineModes>(flags);
  }
  table().size.store(table().modes.size(), std::memory_order_release);
}

bool can_reuse(const Tensor& output, int32_t dtype, std::span<const int64_t> shape,
               std::span<const kiln_tensor> inputs) {
  int32_t own_dtype = 0;
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_dtype(output.get(), &own_dtype));
  if (own_dtype != dtype || !std::ranges::equal(output.sizes(), shape) || !output.is_contiguous()) {
    return false;
  }
  const auto* begin = static_cast<const std::byte*>(output.const_data_ptr());
  const std::byte* end = begin + static_cast<size_t>(output.numel()) * output.element_size();
  return std::ranges::none_of(inputs, [&](const kiln_tensor& input) {
    const MemoryRange range = range_of(input, bytes_of(input.dtype));
    return std::less<>()(range.begin, end) && std::less<>()(begin, range.end);
  });
}

}  // namespace kiln::torch_op

// Sets the modes of the engine at an address, a sum of kReuseOutputs and kProfile; gives the old
// ones.
extern "C" __attribute__((visibility("default"))) uint32_t
kiln_torch_set_engine_modes(const void* data, uint32_t flags) {
  const auto old = kiln::torch_op::find_modes(data);
  kiln::torch_op::set_modes(data, flags);
  return old == nullptr ? 0 : old->flags();
}

extern "C" __attribute__((visibility("default"))) uint32_t
kiln_torch_engine_modes(const void* data) {
  const auto modes = kiln::torch_op::find_modes(data);
  return modes == nullptr ? 0 : modes->flags();
}

// Copies the profile of the last call, JSON of kiln_session_profile, and gives its length, 0 if
// there is none. Nothing is copied where `capacity` is less than that.
extern "C" __attribute__((visibility("default"))) size_t
kiln_torch_engine_profile(const void* data, char* buffer, size_t capacity) {
  const auto modes = kiln::torch_op::find_modes(data);
  const std::string text = modes == nullptr ? std::string() : modes->profile();
  if (text.size() <= capacity) {
    std::ranges::copy(text, buffer);
  }
  return text.size();
}
