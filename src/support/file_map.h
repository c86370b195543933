// A file in memory, read-only.
#pragma once

#include <cstddef>
#include <span>
#include <string>

#include "support/status.h"

namespace kiln {

// Maps a whole file privately and unmaps it on destruction. Pages are read when they are first
// touched. The file must not be truncated or rewritten in place while it is mapped; replacing it by
// a rename is fine.
class FileMap {
 public:
  // Directories, devices and pipes are refused. An empty file gives an empty span.
  static Result<FileMap> open(const std::string& path);

  FileMap() = default;
  FileMap(FileMap&& other) noexcept;
  FileMap& operator=(FileMap&& other) noexcept;
  ~FileMap();

  std::span<const std::byte> bytes() const { return {data_, size_}; }

 private:
  FileMap(const std::byte* data, size_t size) : data_(data), size_(size) {}

  const std::byte* data_ = nullptr;
  size_t size_ = 0;
};

// Gives the memory of the whole pages in a part of a FileMap back; they are read again when they are
// touched. For what is large and has probably been read for the last time.
void forget_pages(std::span<const std::byte> part);

}  // namespace kiln
