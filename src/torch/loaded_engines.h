// Engines that the operator has loaded. An engine is a tensor of bytes that comes with every call;
// loading it takes milliseconds, so what was loaded is kept here.
//
// An entry is found by address, size and the first bytes of the engine, which hold the hash of its
// contents: when the memory is given to another tensor, or is overwritten, the entry no longer
// matches and is replaced. An entry holds a reference to its tensor, so that the bytes outlive the
// engine made from them. The bytes may lie in the memory of a GPU, because `.cuda()` moves all
// buffers of a module: they are copied back once, and what is written over them there is not noticed.
//
// Whoever has an engine for long, such as a module, holds it: what is held stays, and goes when the
// last holder releases it. Of the others, which programs without Python use, kMaxUnheld are kept;
// the least recently used goes first.
#pragma once

#include <torch/csrc/stable/tensor.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <unordered_map>

#include "torch/engine_runner.h"

namespace kiln::torch_op {

class LoadedEngine {
 public:
  // Takes note of what the engine is; `runner` loads it.
  explicit LoadedEngine(torch::stable::Tensor bytes);

  const void* data() const { return data_; }
  // The same memory with the same contents.
  bool is_made_from(const void* data, size_t size) const;
  // The engine's program for a kind of device, loaded if that was not done yet; threads that come
  // meanwhile wait. Throws std::runtime_error for what is not an engine for this machine and device.
  EngineRunner& runner(kiln_device_type type);

 private:
  static constexpr size_t kFingerprintBytes = 64;

  struct Loaded {
    std::once_flag once;
    std::optional<EngineRunner> runner;
  };

  torch::stable::Tensor bytes_;
  OwnedTensor host_copy_;  // of bytes in the memory of a GPU
  const void* data_ = nullptr;
  const void* host_data_ = nullptr;
  size_t size_ = 0;
  std::array<std::byte, kFingerprintBytes> fingerprint_{};
  std::array<Loaded, 2> loaded_;  // by kiln_device_type
};

class LoadedEngines {
 public:
  static constexpr size_t kMaxUnheld = 64;

  // Those of the process. Never destroyed: operators may run while the process exits.
  static LoadedEngines& instance();

  // The entry for the bytes of an engine, which may be new and not loaded yet.
  std::shared_ptr<LoadedEngine> find(const torch::stable::Tensor& bytes);
  // Drops an entry that could not be loaded.
  void forget(const LoadedEngine& engine);

  // Keeps what is loaded from an address until `release` was called as often as this.
  void hold(const void* data);
  // Drops what was loaded from an address unless somebody else holds it; whether nobody does.
  bool release(const void* data);

 private:
  struct Entry {
    std::shared_ptr<LoadedEngine> engine;
    uint64_t last_use = 0;
  };
  using Entries = std::unordered_map<const void*, Entry>;

  // The entry to drop where there are too many that nobody holds, or the end.
  Entries::iterator surplus();

  std::mutex mutex_;  // for a few look-ups: nothing is loaded or destroyed under it
  Entries engines_;   // by address
  std::unordered_map<const void*, size_t> holders_;
  size_t num_unheld_ = 0;  // entries without holders
  uint64_t uses_ = 0;
};

}  // namespace kiln::torch_op
