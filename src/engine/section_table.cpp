#include "engine/section_table.h"

#include <algorithm>
#include <cstring>

namespace kiln::engine {
namespace {

using Bytes = std::span<const std::byte>;

Status invalid(const std::string& what) { return Status(StatusCode::InvalidEngine, what); }

}  // namespace

uint64_t section_alignment(SectionKind kind) {
  return kind == SectionKind::Code || kind == SectionKind::Weights ? kPageSize : kTableAlignment;
}

Status damaged(const std::string& what) { return invalid("damaged engine: " + what); }

std::string section_kind_name(SectionKind kind) {
  switch (kind) {
    case SectionKind::Interface:
      return "interface";
    case SectionKind::Program:
      return "program";
    case SectionKind::Code:
      return "code";
    case SectionKind::Weights:
      return "weights";
  }
  return "section of kind " + std::to_string(static_cast<uint32_t>(kind));
}

std::string section_name(const SectionEntry& section) {
  const bool numbered = section.kind == SectionKind::Program || section.kind == SectionKind::Code;
  const std::string name = section_kind_name(section.kind);
  return numbered ? name + " " + std::to_string(section.index) : name;
}

Result<FileHeader> read_header(Bytes bytes) {
  FileHeader header;
  const size_t magic_size = std::min(bytes.size(), header.magic.size());
  if (bytes.empty() || std::memcmp(bytes.data(), kMagic.data(), magic_size) != 0)
    return invalid("not a Kiln engine");
  if (bytes.size() < sizeof(header))
    return invalid("truncated engine: " + std::to_string(bytes.size()) + " bytes");
  std::memcpy(&header, bytes.data(), sizeof(header));
  if (header.format_version > kFormatVersion)
    return invalid("this engine has format version " + std::to_string(header.format_version) +
                   ", this version of Kiln reads up to " + std::to_string(kFormatVersion) +
                   ": a newer Kiln is needed");
  if (header.format_version < kPlainFormatVersion)
    return invalid("this engine has format version " + std::to_string(header.format_version) +
                   ", which was never released: compile the model again");
  if (bytes.size() != header.file_size)
    return invalid((bytes.size() < header.file_size ? "truncated" : "damaged") +
                   std::string(" engine: ") + std::to_string(bytes.size()) + " bytes, expected " +
                   std::to_string(header.file_size));
  return header;
}

Result<std::vector<SectionEntry>> read_sections(Bytes bytes, const FileHeader& header) {
  const uint64_t table_size = uint64_t{header.section_count} * sizeof(SectionEntry);
  if (header.section_count > kMostSections || table_size > bytes.size() - sizeof(header))
    return damaged(std::to_string(header.section_count) + " sections");
  std::vector<SectionEntry> sections(header.section_count);
  if (table_size > 0) std::memcpy(sections.data(), bytes.data() + sizeof(header), table_size);
  if (header_hash(header, sections) != header.hash)
    return damaged("the header does not match its hash");
  return sections;
}

Status check_bounds(const std::vector<SectionEntry>& sections, uint64_t file_size) {
  std::vector<SectionEntry> ordered = sections;
  std::ranges::sort(ordered, {}, &SectionEntry::offset);
  uint64_t end = sizeof(FileHeader) + sections.size() * sizeof(SectionEntry);
  for (const SectionEntry& section : ordered) {
    if (section.offset < end || section.offset > file_size ||
        section.size > file_size - section.offset ||
        section.offset % section_alignment(section.kind) != 0)
      return damaged("the " + section_name(section) + " is out of place");
    end = section.offset + section.size;
  }
  return Status();
}

}  // namespace kiln::engine
