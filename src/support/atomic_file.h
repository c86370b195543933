// Files that appear whole or not at all.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

#include "support/file_descriptor.h"
#include "support/status.h"

namespace kiln {

// Writes to a temporary file in the folder of `path`; commit() syncs it to the disk and renames it
// over `path`. Without a successful commit `path` is as it was, and the temporary file is removed
// on destruction.
class AtomicFile {
 public:
  // An existing `path` must be a regular file: a device or a folder is never replaced.
  static Result<AtomicFile> create(const std::string& path);

  AtomicFile(AtomicFile&& other) noexcept = default;
  AtomicFile& operator=(AtomicFile&&) = delete;
  ~AtomicFile();

  // Gaps between writes read as zeros.
  Status write_at(uint64_t offset, std::span<const std::byte> bytes);
  Status resize(uint64_t size);
  Status commit();

 private:
  AtomicFile(std::string path, std::string temporary, FileDescriptor file);

  std::string path_, temporary_;
  FileDescriptor file_;
};

}  // namespace kiln
