// The fixed part of an engine file: header and section table, little-endian. docs/engine_format.md
// describes the whole.
#pragma once

#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <span>

#include "support/hash.h"

namespace kiln::engine {

static_assert(std::endian::native == std::endian::little);

inline constexpr std::array<char, 8> kMagic = {'K', 'I', 'L', 'N', 'E', 'N', 'G', '\0'};
// The newest that is read. A file has the oldest that says what it is: 1, or 2 without weights.
inline constexpr uint32_t kFormatVersion = 2;

// Code is mapped from the file, so it has pages of its own; weights start on a page for the same
// reason.
inline constexpr uint64_t kPageSize = 4096;
inline constexpr uint64_t kPlanAlignment = 16;
inline constexpr uint64_t kConstantAlignment = 64;

enum class SectionKind : uint32_t { Plan = 1, Code = 2, Weights = 3 };

struct SectionEntry {
  SectionKind kind{};
  uint32_t index = 0;  // Code: number of the variant; otherwise 0
  uint64_t offset = 0;
  uint64_t size = 0;
  Hash128 hash{};  // of the section's bytes
};
static_assert(sizeof(SectionEntry) == 40 && alignof(SectionEntry) == 8);

struct FileHeader {
  std::array<char, 8> magic = kMagic;
  uint32_t format_version = 1;
  uint32_t section_count = 0;
  uint64_t file_size = 0;
  uint64_t reserved = 0;
  // Of the 32 bytes above and the section table. It covers the hashes of all sections, so it
  // identifies the content.
  Hash128 hash{};
};
static_assert(sizeof(FileHeader) == 48 && offsetof(FileHeader, hash) == 32);

inline Hash128 header_hash(const FileHeader& header, std::span<const SectionEntry> sections) {
  Hasher hasher;
  hasher.update(std::as_bytes(std::span(&header, 1)).first(offsetof(FileHeader, hash)));
  hasher.update(std::as_bytes(sections));
  return hasher.finish();
}

}  // namespace kiln::engine
