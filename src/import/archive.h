// The zip container of a .pt2 file: stored entries only, as torch.export writes them. The bytes are
// hostile until proven otherwise: every offset and size is checked against the file before it is
// used.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>

namespace kiln::import {

class Archive {
 public:
  enum class Compressed { Refused, Listed };

  // Reads the central directory of `bytes`, which must outlive the archive. CompileError for
  // anything that is not a zip archive of stored entries; compressed ones may be listed as they
  // are.
  explicit Archive(std::span<const std::byte> bytes, Compressed compressed = Compressed::Refused);

  // An entry by its name below the top folder: "models/model.json". The folder is named after the
  // file that was saved.
  std::optional<std::span<const std::byte>> find(std::string_view name) const;
  // The same; CompileError if there is none.
  std::span<const std::byte> get(std::string_view name) const;
  size_t size() const { return entries_.size(); }

  struct Entry {
    std::span<const std::byte> bytes;
    uint32_t crc = 0;  // as the directory says, of what is stored or was compressed
    bool stored = true;
  };
  // By the name below the top folder.
  const std::map<std::string, Entry, std::less<>>& entries() const { return entries_; }

 private:
  std::map<std::string, Entry, std::less<>> entries_;
};

}  // namespace kiln::import
