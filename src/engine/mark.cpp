#include "engine/mark.h"

#include <cstring>

#include "engine/format.h"

namespace kiln::engine {

static_assert(kMarkBytes == offsetof(FileHeader, hash));

std::optional<uint64_t> mark_of(std::span<const std::byte> bytes) {
  if (bytes.size() < kMarkBytes) return std::nullopt;
  FileHeader header;
  std::memcpy(static_cast<void*>(&header), bytes.data(), kMarkBytes);
  if (header.magic != kMagic) return std::nullopt;
  return header.reserved;
}

std::vector<std::byte> marked_start(std::span<const std::byte> bytes, uint64_t mark) {
  FileHeader header;
  std::memcpy(&header, bytes.data(), sizeof(header));
  std::vector<SectionEntry> sections(header.section_count);
  const auto table = std::as_writable_bytes(std::span(sections));
  std::memcpy(table.data(), bytes.data() + sizeof(header), table.size());
  header.reserved = mark;
  header.hash = header_hash(header, sections);
  std::vector<std::byte> result(sizeof(header) + table.size());
  std::memcpy(result.data(), &header, sizeof(header));
  std::memcpy(result.data() + sizeof(header), table.data(), table.size());
  return result;
}

}  // namespace kiln::engine
