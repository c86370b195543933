// The zip reader. A zip file is read from its end: the end record gives the central directory,
// whose headers give name, sizes and the offset of each local header; the data follows the local
// header. Files above 4 GiB have a second, 64-bit end record and 64-bit values in the extra field
// of each header.
#include "import/archive.h"

#include <algorithm>
#include <cstdint>
#include <cstring>

#include "support/error.h"

namespace kiln::import {
namespace {

using Bytes = std::span<const std::byte>;

constexpr uint32_t kLocalHeader = 0x04034b50;
constexpr uint32_t kCentralHeader = 0x02014b50;
constexpr uint32_t kEnd = 0x06054b50;
constexpr uint32_t kEnd64 = 0x06064b50;
constexpr uint32_t kEnd64Locator = 0x07064b50;
constexpr size_t kEndSize = 22;
constexpr size_t kEnd64LocatorSize = 20;
constexpr size_t kEnd64Size = 56;
constexpr size_t kLocalHeaderSize = 30;
constexpr size_t kCentralHeaderSize = 46;
constexpr size_t kMaxCommentSize = 0xffff;
constexpr uint16_t kZip64Field = 1;
constexpr uint16_t kEncrypted = 1;
constexpr uint16_t kStored = 0;
constexpr uint64_t kMaxEntries = 1 << 20;

[[noreturn]] void fail(const std::string& got, const std::string& expected) {
  throw CompileError("[archive] got " + got + ", expected " + expected);
}

// A window of the file that starts at `offset`; fails if the file is too short.
Bytes window(Bytes bytes, uint64_t offset, uint64_t size, const char* what) {
  if (offset > bytes.size() || size > bytes.size() - offset) {
    fail(std::string(what) + " beyond the end of the file", "a complete file");
  }
  return bytes.subspan(offset, size);
}

// A little-endian integer; the caller has checked the bounds.
template <typename T>
T read(Bytes bytes, size_t offset) {
  T value;
  std::memcpy(&value, bytes.data() + offset, sizeof(T));
  return value;
}

size_t find_end(Bytes bytes) {
  if (bytes.size() < kEndSize)
    fail("a file of " + std::to_string(bytes.size()) + " bytes", "a zip archive");
  const size_t last = bytes.size() - kEndSize;
  const size_t first = last > kMaxCommentSize ? last - kMaxCommentSize : 0;
  for (size_t at = last + 1; at-- > first;) {
    const bool fits = read<uint32_t>(bytes, at) == kEnd &&
                      read<uint16_t>(bytes, at + 20) == bytes.size() - at - kEndSize;
    if (fits) return at;
  }
  fail("no end record", "a zip archive (a .pt2 file of torch.export.save)");
}

struct Directory {
  uint64_t entries = 0, size = 0, offset = 0;
};

Directory read_directory64(Bytes bytes, size_t end) {
  const Bytes locator =
      window(bytes, end - kEnd64LocatorSize, kEnd64LocatorSize, "the 64-bit end locator");
  const Bytes record =
      window(bytes, read<uint64_t>(locator, 8), kEnd64Size, "the 64-bit end record");
  if (read<uint32_t>(record, 0) != kEnd64) fail("a wrong 64-bit end record", "a zip archive");
  return {read<uint64_t>(record, 32), read<uint64_t>(record, 40), read<uint64_t>(record, 48)};
}

Directory read_end(Bytes bytes) {
  const size_t end = find_end(bytes);
  const bool has_64 =
      end >= kEnd64LocatorSize && read<uint32_t>(bytes, end - kEnd64LocatorSize) == kEnd64Locator;
  if (has_64) return read_directory64(bytes, end);
  return {read<uint16_t>(bytes, end + 10), read<uint32_t>(bytes, end + 12),
          read<uint32_t>(bytes, end + 16)};
}

struct DirectoryEntry {
  std::string name;
  bool stored = true;
  uint32_t crc = 0;
  uint64_t packed_size = 0, size = 0, offset = 0;
};

// 64-bit values, in this order, for those fields of the header that are all ones.
void apply_zip64(Bytes extra, DirectoryEntry& entry) {
  while (extra.size() >= 4) {
    const uint16_t tag = read<uint16_t>(extra, 0), length = read<uint16_t>(extra, 2);
    Bytes field = window(extra, 4, length, "an extra field");
    extra = extra.subspan(4 + size_t{length});
    if (tag != kZip64Field) continue;
    for (uint64_t* value : {&entry.size, &entry.packed_size, &entry.offset}) {
      if (*value != 0xffffffff) continue;
      *value = read<uint64_t>(window(field, 0, 8, "a 64-bit size"), 0);
      field = field.subspan(8);
    }
    return;
  }
}

// Reads the central header at the start of `directory` and steps over it.
DirectoryEntry take_entry(Bytes& directory) {
  const Bytes header = window(directory, 0, kCentralHeaderSize, "a directory entry");
  if (read<uint32_t>(header, 0) != kCentralHeader) fail("a wrong directory entry", "a zip archive");
  const size_t name_size = read<uint16_t>(header, 28), extra_size = read<uint16_t>(header, 30);
  const size_t comment_size = read<uint16_t>(header, 32);
  const Bytes name = window(directory, kCentralHeaderSize, name_size, "an entry name");
  const Bytes extra =
      window(directory, kCentralHeaderSize + name_size, extra_size, "an extra field");
  const size_t total = kCentralHeaderSize + name_size + extra_size + comment_size;
  window(directory, 0, total, "a directory entry");

  DirectoryEntry entry;
  entry.name.assign(reinterpret_cast<const char*>(name.data()), name.size());
  if (read<uint16_t>(header, 8) & kEncrypted)
    fail("encrypted entry " + entry.name, "plain entries");
  entry.stored = read<uint16_t>(header, 10) == kStored;
  entry.crc = read<uint32_t>(header, 16);
  entry.packed_size = read<uint32_t>(header, 20);
  entry.size = read<uint32_t>(header, 24);
  entry.offset = read<uint32_t>(header, 42);
  apply_zip64(extra, entry);
  directory = directory.subspan(total);
  return entry;
}

Bytes entry_data(Bytes bytes, const DirectoryEntry& entry) {
  if (entry.stored && entry.packed_size != entry.size)
    fail("two sizes for " + entry.name, "stored entries");
  const Bytes header = window(bytes, entry.offset, kLocalHeaderSize, "a local header");
  if (read<uint32_t>(header, 0) != kLocalHeader) {
    fail("no local header for " + entry.name, "a zip archive");
  }
  const uint64_t skip = kLocalHeaderSize + read<uint16_t>(header, 26) + read<uint16_t>(header, 28);
  return window(bytes.subspan(entry.offset), skip, entry.packed_size, entry.name.c_str());
}

}  // namespace

Archive::Archive(Bytes bytes, Compressed compressed) {
  const Directory directory = read_end(bytes);
  if (directory.entries > kMaxEntries) {
    fail(std::to_string(directory.entries) + " entries", "at most " + std::to_string(kMaxEntries));
  }
  Bytes rest = window(bytes, directory.offset, directory.size, "the directory");
  for (uint64_t i = 0; i < directory.entries; ++i) {
    const DirectoryEntry entry = take_entry(rest);
    if (!entry.stored && compressed == Compressed::Refused)
      fail("compressed entry " + entry.name, "stored entries, as torch.export.save writes them");
    const size_t slash = entry.name.find('/');
    const std::string below =
        slash == std::string::npos ? entry.name : entry.name.substr(slash + 1);
    if (!entries_.emplace(below, Entry{entry_data(bytes, entry), entry.crc, entry.stored}).second) {
      fail("entry " + below + " twice", "one top folder");
    }
  }
}

std::optional<Bytes> Archive::find(std::string_view name) const {
  const auto found = entries_.find(name);
  if (found == entries_.end()) return std::nullopt;
  return found->second.bytes;
}

Bytes Archive::get(std::string_view name) const {
  if (const auto bytes = find(name)) return *bytes;
  fail("no entry " + std::string(name), "an archive written by torch.export.save");
}

}  // namespace kiln::import
