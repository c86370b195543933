#include "torch/loaded_engines.h"

#include <algorithm>
#include <cstring>
#include <utility>

namespace kiln::torch_op {

LoadedEngine::LoadedEngine(torch::stable::Tensor bytes)
    : bytes_(std::move(bytes)),
      data_(bytes_.const_data_ptr()),
      host_data_(data_),
      size_(static_cast<size_t>(bytes_.numel())) {
  if (!is_on_cpu(bytes_.get())) {
    const int64_t size = bytes_.numel();
    host_copy_ = new_tensor(KILN_U8, {&size, 1});
    check_torch(aoti_torch_copy_(host_copy_.get(), bytes_.get(), 0), "copy an engine from a GPU");
    void* copied = nullptr;
    check_torch(aoti_torch_get_data_ptr(host_copy_.get(), &copied), "tell where a tensor lies");
    host_data_ = copied;
  }
  if (size_ > 0) std::memcpy(fingerprint_.data(), host_data_, std::min(size_, kFingerprintBytes));
}

bool LoadedEngine::is_made_from(const void* data, size_t size) const {
  return data == data_ && size == size_ &&
         (size == 0 || host_copy_ != nullptr ||
          std::memcmp(data, fingerprint_.data(), std::min(size, kFingerprintBytes)) == 0);
}

EngineRunner& LoadedEngine::runner(kiln_device_type type) {
  Loaded& loaded = loaded_.at(static_cast<size_t>(type));
  std::call_once(loaded.once, [&] {
    loaded.runner.emplace(
        load_for(type, [&](const kiln_load_options* options, kiln_engine** engine) {
          return kiln_engine_load_memory(host_data_, size_, options, engine);
        }));
  });
  return *loaded.runner;
}

LoadedEngines& LoadedEngines::instance() {
  static auto* engines = new LoadedEngines;
  return *engines;
}

std::shared_ptr<LoadedEngine> LoadedEngines::find(const torch::stable::Tensor& bytes) {
  const void* data = bytes.const_data_ptr();
  const auto size = static_cast<size_t>(bytes.numel());
  std::shared_ptr<LoadedEngine> replaced, dropped;  // destroyed after the lock is given up
  std::lock_guard lock(mutex_);
  if (const auto found = engines_.find(data); found != engines_.end()) {
    found->second.last_use = ++uses_;
    if (found->second.engine->is_made_from(data, size)) return found->second.engine;
    auto fresh = std::make_shared<LoadedEngine>(bytes);
    replaced = std::exchange(found->second.engine, fresh);
    return fresh;
  }
  auto fresh = std::make_shared<LoadedEngine>(bytes);
  engines_.emplace(data, Entry{fresh, ++uses_});
  num_unheld_ += holders_.contains(data) ? 0 : 1;
  if (const auto old = surplus(); old != engines_.end()) {
    dropped = std::move(old->second.engine);
    engines_.erase(old);
    --num_unheld_;
  }
  return fresh;
}

LoadedEngines::Entries::iterator LoadedEngines::surplus() {
  if (num_unheld_ <= kMaxUnheld) return engines_.end();
  auto oldest = engines_.end();
  for (auto it = engines_.begin(); it != engines_.end(); ++it) {
    const bool older = oldest == engines_.end() || it->second.last_use < oldest->second.last_use;
    if (older && !holders_.contains(it->first)) oldest = it;
  }
  return oldest;
}

void LoadedEngines::forget(const LoadedEngine& engine) {
  std::shared_ptr<LoadedEngine> dropped;
  std::lock_guard lock(mutex_);
  const auto found = engines_.find(engine.data());
  if (found == engines_.end() || found->second.engine.get() != &engine) return;
  dropped = std::move(found->second.engine);
  engines_.erase(found);
  num_unheld_ -= holders_.contains(engine.data()) ? 0 : 1;
}

void LoadedEngines::hold(const void* data) {
  std::lock_guard lock(mutex_);
  if (++holders_[data] == 1 && engines_.contains(data)) --num_unheld_;
}

bool LoadedEngines::release(const void* data) {
  std::shared_ptr<LoadedEngine> dropped;
  std::lock_guard lock(mutex_);
  const auto holders = holders_.find(data);
  const bool was_held = holders != holders_.end();
  if (was_held && --holders->second > 0) return false;
  if (was_held) holders_.erase(holders);
  const auto found = engines_.find(data);
  if (found == engines_.end()) return true;
  dropped = std::move(found->second.engine);
  engines_.erase(found);
  if (!was_held) --num_unheld_;
  return true;
}

}  // namespace kiln::torch_op
