// Engines that the operator has deserialised. An engine is a tensor of bytes
// that comes with every call; loading it takes milliseconds, so what was loaded is kept here.
//
// An entry is found by address, size and the first bytes of the engine, which hold the hash of its
// contents: when the memory is given to another tensor, or is overwritten, the entry no longer
// matches and is replaced. An entry holds a reference to its tensor, so that the bytes outlive the
// engine made from them. At most kMaxEngines are kept; the least recently used goes first.
// release() drops one at once.
#pragma once

#include <torch/csrc/stable/tensor.h>

#include <array>
#include <cstddef>
#include <list>
#include <memory>
#include <mutex>
#include <optional>

#include "torch/engine_runner.h"

namespace kiln::torch_op {

class LoadedEngine {
 public:
  explicit LoadedEngine(torch::stable::Tensor bytes);

  bool is_at(const void* data) const { return data == data_; }
  // The same memory with the same contents.
  bool is_made_from(const void* data, size_t size) const;
  EngineRunner& runner() { return *runner_; }

 private:
  static constexpr size_t kFingerprintBytes = 64;

  torch::stable::Tensor bytes_;
  const void* data_ = nullptr;
  size_t size_ = 0;
  std::array<std::byte, kFingerprintBytes> fingerprint_{};
  std::optional<EngineRunner> runner_;
};

class EngineCache {
 public:
  static constexpr size_t kMaxEngines = 64;

  // The one cache of the process. Never destroyed: operators may run while the process exits.
  static EngineCache& instance();

  std::shared_ptr<LoadedEngine> find_or_load(const torch::stable::Tensor& bytes);
  void release(const void* data);

 private:
  std::mutex mutex_;
  std::list<std::shared_ptr<LoadedEngine>> engines_;  // the most recently used first
};

}  // namespace kiln::torch_op
