// Header and section table of an engine file: read and checked. Nothing behind them is looked at.
#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <vector>

#include "engine/format.h"
#include "support/status.h"

namespace kiln::engine {

// InvalidEngine: "damaged engine: <what>".
Status damaged(const std::string& what);

// Code and weights are used where they are mapped, and have pages of their own.
uint64_t section_alignment(SectionKind kind);

// "interface", "code", "section of kind 9"
std::string section_kind_name(SectionKind kind);
// The same with the number of the program: "code 0".
std::string section_name(const SectionEntry& section);

// Magic, version and size.
Result<FileHeader> read_header(std::span<const std::byte> bytes);
// The table, by the header's hash.
Result<std::vector<SectionEntry>> read_sections(std::span<const std::byte> bytes,
                                                const FileHeader& header);
// Sections lie inside the file, behind the table, aligned and apart from each other.
Status check_bounds(const std::vector<SectionEntry>& sections, uint64_t file_size);

inline std::span<const std::byte> bytes_of(std::span<const std::byte> file,
                                           const SectionEntry& section) {
  return file.subspan(section.offset, section.size);
}

}  // namespace kiln::engine
