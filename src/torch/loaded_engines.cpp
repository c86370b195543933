#include "torch/engine_cache.h"

#include <algorithm>
#include <cstring>
#include <utility>

namespace kiln::torch_op {

LoadedEngine::LoadedEngine(torch::stable::Tensor bytes)
    : bytes_(std::move(bytes)),
      data_(bytes_.const_data_ptr()),
      size_(static_cast<size_t>(bytes_.numel())) {
  std::memcpy(fingerprint_.data(), data_, std::min(size_, kFingerprintBytes));
  kiln_engine* engine = nullptr;
  check(kiln_engine_load_memory(data_, size_, nullptr, &engine));
  runner_.emplace(EnginePtr(engine));
}

bool LoadedEngine::is_made_from(const void* data, size_t size) const {
  return data == data_ && size == size_ &&
         std::memcmp(data, fingerprint_.data(), std::min(size, kFingerprintBytes)) == 0;
}

EngineCache& EngineCache::instance() {
  static auto* cache = new EngineCache;
  return *cache;
}

std::shared_ptr<LoadedEngine> EngineCache::find_or_load(const torch::stable::Tensor& bytes) {
  const void* data = bytes.const_data_ptr();
  const auto size = static_cast<size_t>(bytes.numel());
  std::lock_guard lock(mutex_);
  for (auto it = engines_.begin(); it != engines_.end(); ++it) {
    if ((*it)->is_made_from(data, size)) {
      engines_.splice(engines_.begin(), engines_, it);
      return engines_.front();
    }
  }
  std::erase_if(engines_, [&](const auto& engine) { return engine->is_at(data); });
  engines_.push_front(std::make_shared<LoadedEngine>(bytes));
  if (engines_.size() > kMaxEngines) {
    engines_.pop_back();
  }
  return engines_.front();
}

void EngineCache::release(const void* data) {
  std::lock_guard lock(mutex_);
  std::erase_if(engines_, [&](const auto& engine) { return engine->is_at(data); });
}

}  // namespace kiln::torch_op
