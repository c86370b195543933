// Code of kernels in a folder, each in a file named by the hash of what it was compiled from. What engines
// with other sizes, weights or layers have in common is compiled once. docs/engine_cache.md.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "backends/common/code_store.h"
#include "support/folder.h"
#include "support/status.h"

namespace kiln {

// Any number of processes may share a folder: files appear whole and are never changed. An entry says
// what it is and has a hash of its contents: a damaged one is not used, and made again; files of others
// are left alone. Builds of the compiler share nothing.
class KernelCache : public backend::CodeStore {
 public:
  static constexpr uint64_t kDefaultBytes = uint64_t{512} << 20;

  struct Options {
    bool read = true, write = true;
    uint64_t max_bytes = kDefaultBytes;
  };
  // Makes the folder, for the user alone, if it is not there; one that others may write to is refused.
  static Result<std::unique_ptr<KernelCache>> open(const std::string& directory,
                                                   const Options& options);

  std::optional<std::vector<std::byte>> find(const Hash128& key) override;
  void add(const Hash128& key, std::span<const std::byte> code) override;
  // Writes what add() got, then removes what was not used for longest until the rest fits. The first
  // problem.
  Status finish();

 private:
  KernelCache(Folder folder, const Options& options)
      : folder_(std::make_shared<const Folder>(std::move(folder))), options_(options) {}

  Status write(const std::string& name, std::span<const std::byte> code) const;

  const std::shared_ptr<const Folder> folder_;
  const Options options_;
  std::mutex mutex_;
  std::map<std::string, std::vector<std::byte>> added_;
};

}  // namespace kiln
