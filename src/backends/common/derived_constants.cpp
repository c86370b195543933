#include "backends/common/derived_constants.h"

#include <algorithm>

#include "backends/common/parallel.h"

namespace kiln::backend {

plan::BufferId DerivedConstants::derived(
    plan::BufferId original, const std::string& key,
    const std::function<ir::Literal(const ir::Literal&)>& make) {
  auto it = std::ranges::find_if(
      entries_, [&](const Entry& entry) { return entry.original == original && entry.key == key; });
  if (it == entries_.end()) it = entries_.insert(it, {original, key, make, {}});
  return first_ + static_cast<plan::BufferId>(it - entries_.begin());
}

plan::BufferId DerivedConstants::made_at_load(const engine::WinogradSpec& winograd) {
  auto it = std::ranges::find(entries_, winograd, &Entry::winograd);
  if (it == entries_.end()) it = entries_.insert(it, {winograd.filters, "", nullptr, winograd});
  return first_ + static_cast<plan::BufferId>(it - entries_.begin());
}

const DerivedConstants::Entry* DerivedConstants::find(plan::BufferId buffer) const {
  return buffer < first_ ? nullptr : &entries_.at(static_cast<size_t>(buffer - first_));
}

size_t SharedConstants::add(const DerivedConstants::Entry& entry, plan::BufferId original) {
  const auto [it, fresh] = numbers_.try_emplace({original, entry.key}, entries_.size());
  if (fresh) entries_.push_back({original, entry.key, entry.make, {}});
  return it->second;
}

std::vector<ir::Literal> SharedConstants::make(const plan::Program& program, int threads) const {
  std::vector<ir::Literal> literals(entries_.size());
  run_parallel(entries_.size(), threads, [&](size_t, size_t i) {
    const ir::Literal& original =
        program.buffers.at(static_cast<size_t>(entries_[i].original)).literal;
    literals[i] = entries_[i].make(original);
    original.forget();
  });
  return literals;
}

}  // namespace kiln::backend
