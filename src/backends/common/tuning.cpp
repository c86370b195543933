#include "backends/common/tuning.h"

namespace kiln::backend {

std::optional<uint32_t> Tuning::find(const Hash128& key) const {
  if (const auto known = known_.find(key); known != known_.end()) return known->second;
  const std::lock_guard lock(mutex_);
  const auto found = found_.find(key);
  return found == found_.end() ? std::nullopt : std::optional(found->second);
}

void Tuning::add(const Hash128& key, uint32_t fastest) {
  const std::lock_guard lock(mutex_);
  found_[key] = fastest;
}

void Tuning::warn(const std::string& text) {
  const std::lock_guard lock(mutex_);
  warnings_.insert(text);
}

Timings Tuning::found() const {
  const std::lock_guard lock(mutex_);
  return found_;
}

std::set<std::string> Tuning::warnings() const {
  const std::lock_guard lock(mutex_);
  return warnings_;
}

}  // namespace kiln::backend
