#include "backends/common/kernel_interface.h"

#include <algorithm>

#include "engine/spec.h"

namespace kiln::backend {
namespace {

template <typename T>
int32_t index_of(std::vector<T>& list, const T& item) {
  auto it = std::ranges::find(list, item);
  if (it == list.end()) it = list.insert(it, item);
  return static_cast<int32_t>(it - list.begin());
}

}  // namespace

int32_t KernelInterface::buffer_index(plan::BufferId buffer) { return index_of(buffers, buffer); }

int32_t KernelInterface::param_index(const ir::Dim& dim) { return index_of(params, dim); }

int32_t KernelInterface::check_bit(int32_t check) {
  return std::min(index_of(checks, check), static_cast<int32_t>(engine::kMostChecks) - 1);
}

}  // namespace kiln::backend
