#include "backends/cuda/device/graph_cache.h"

#include <algorithm>

namespace kiln::cuda {
namespace {

constexpr size_t kMostEntries = 16;

void destroy(GraphCache::Entry& entry) {
  if (entry.graph != nullptr) driver().cuGraphExecDestroy(entry.graph);
}

}  // namespace

GraphCache::Entry& GraphCache::find(std::span<const uint64_t> addresses, bool& is_new) {
  const auto found = std::ranges::find_if(
      entries_, [&](const Entry& entry) { return std::ranges::equal(entry.addresses, addresses); });
  is_new = found == entries_.end();
  if (!is_new) {
    entries_.splice(entries_.begin(), entries_, found);
    return entries_.front();
  }
  if (entries_.size() == kMostEntries) {
    destroy(entries_.back());
    entries_.pop_back();
  }
  entries_.push_front({{addresses.begin(), addresses.end()}, nullptr});
  return entries_.front();
}

void GraphCache::clear() {
  std::ranges::for_each(entries_, destroy);
  entries_.clear();
}

}  // namespace kiln::cuda
