// Engines in a folder, each in a file named by its key. docs/engine_cache.md.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "support/folder.h"
#include "support/status.h"

namespace kiln {

inline constexpr uint64_t kDefaultCacheBytes = uint64_t{5} << 30;

// Any number of processes may share a folder: files appear whole and are never changed, and what
// one process removes, others miss and make again.
//
// An entry is a file <key>.kiln whose header is marked with its key: nobody else's engine has that,
// so that files of the user's in the same folder are never taken, replaced or removed.
class EngineCache {
 public:
  // Makes the folder, for the user alone, if it is not there. An engine is code: a folder that
  // somebody else owns or may write to is refused, and so is a symbolic link. It is opened once:
  // what the path means later does not matter. max_bytes 0: kDefaultCacheBytes.
  static Result<EngineCache> open(const std::string& directory, uint64_t max_bytes);

  // The engine of a key, checked byte for byte. NotFound where there is none; a damaged one is
  // removed, and is an InvalidEngine. A hit makes the entry the most recently used.
  Result<std::vector<std::byte>> find(const std::string& key) const;
  // Then removes the least recently used entries until the rest fits. An engine that is larger than
  // the whole cache is refused, and so is a key whose file is not an entry of the cache.
  Status store(const std::string& key, std::span<const std::byte> engine) const;

 private:
  EngineCache(Folder folder, uint64_t max_bytes)
      : folder_(std::make_shared<const Folder>(std::move(folder))), max_bytes_(max_bytes) {}

  std::shared_ptr<const Folder> folder_;
  uint64_t max_bytes_;
};

}  // namespace kiln
