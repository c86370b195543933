#include "torch/engine_cache.h"

#include <algorithm>
#include <cstring>
#include <stdexcept>
#include <utility>

namespace kiln::torch_op {

void check(kiln_status status) {
  if (status != KILN_OK) {
    throw std::runtime_error(kiln_last_error());
  }
}

LoadedEngine::LoadedEngine(torch::stable::Tensor bytes)
    : bytes_(std::move(bytes)),
      data_(bytes_.const_data_ptr()),
      size_(static_cast<size_t>(bytes_.numel())) {
  std::memcpy(fingerprint_.data(), data_, std::min(size_, kFingerprintBytes));
  kiln_engine* engine = nullptr;
  check(kiln_engine_load_memory(data_, size_, nullptr, &engine));
  engine_.reset(engine);
  for (size_t i = 0; i < kiln_engine_num_outputs(engine); ++i) {
    kiln_tensor_info info;
    check(kiln_engine_output(engine, i, &info));
    outputs_.push_back({info.dtype, info.rank});
  }
}

bool LoadedEngine::is_made_from(const void* data, size_t size) const {
  return data == data_ && size == size_ &&
         std::memcmp(data, fingerprint_.data(), std::min(size, kFingerprintBytes)) == 0;
}

SessionPtr LoadedEngine::take_session(int num_threads) {
  {
    std::lock_guard lock(mutex_);
    if (idle_threads_ != num_threads) {
      idle_.clear();
      idle_threads_ = num_threads;
    }
    if (!idle_.empty()) {
      SessionPtr session = std::move(idle_.back());
      idle_.pop_back();
      return session;
    }
  }
  const kiln_session_options options{sizeof(kiln_session_options), num_threads};
  kiln_session* session = nullptr;
  check(kiln_session_create(engine_.get(), &options, &session));
  return SessionPtr(session);
}

void LoadedEngine::give_back(SessionPtr session, int num_threads) {
  std::lock_guard lock(mutex_);
  if (num_threads == idle_threads_) {
    idle_.push_back(std::move(session));
  }
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
