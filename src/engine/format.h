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
// Versions 1 and 2 were never released. 4 is that of engines with sizes that a run finds, of which the
// interface cannot be read without; others have 3.
inline constexpr uint32_t kFormatVersion = 4, kPlainFormatVersion = 3;

// Code is mapped from the file, so it has pages of its own; weights start on a page for the same
// reason.
inline constexpr uint64_t kPageSize = 4096;
inline constexpr uint64_t kTableAlignment = 16;
inline constexpr uint64_t kConstantAlignment = 64;

inline constexpr uint32_t kMostSections = 64;
// Each has two sections, and there are two more.
inline constexpr size_t kMostPrograms = (kMostSections - 2) / 2;

enum class SectionKind : uint32_t { Interface = 1, Program = 2, Code = 3, Weights = 4 };

struct SectionEntry {
  SectionKind kind{};
  uint32_t index = 0;  // Program, Code: number of the program; otherwise 0
  uint64_t offset = 0;
  uint64_t size = 0;
  Hash128 hash{};  // of the section's bytes
};
static_assert(sizeof(SectionEntry) == 40 && alignof(SectionEntry) == 8);

struct FileHeader {
  std::array<char, 8> magic = kMagic;
  uint32_t format_version = kPlainFormatVersion;
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
