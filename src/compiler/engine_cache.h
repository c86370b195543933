// Engines in a folder, each in a file named by its key. docs/engine_cache.md.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "support/status.h"

namespace kiln {

inline constexpr uint64_t kDefaultCacheBytes = uint64_t{5} << 30;

// Any number of processes may share a folder: files appear whole and are never changed, and what
// one process removes, others miss and make again.
class EngineCache {
 public:
  // Makes the folder, for the user alone, if it is not there. An engine is code: a folder that
  // somebody else owns or may write to is refused. max_bytes 0: kDefaultCacheBytes.
  static Result<EngineCache> open(const std::string& directory, uint64_t max_bytes);

  // The engine of a key, checked byte for byte. NotFound where there is none; a damaged one is
  // removed, and is an InvalidEngine. A hit makes the entry the most recently used.
  Result<std::vector<std::byte>> find(const std::string& key) const;
  // Then removes the least recently used entries until the rest fits. An engine that is larger than
  // the whole cache is refused.
  Status store(const std::string& key, std::span<const std::byte> engine) const;

 private:
  EngineCache(std::string directory, uint64_t max_bytes)
      : directory_(std::move(directory)), max_bytes_(max_bytes) {}

  std::string path_of(const std::string& key) const;
  void evict(const std::string& kept) const;

  std::string directory_;
  uint64_t max_bytes_;
};

}  // namespace kiln
