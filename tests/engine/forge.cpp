#include "engine/forge.h"

#include <algorithm>
#include <cstring>

#include "engine/codec.h"
#include "engine/reader.h"
#include "engine/sample_engine.h"
#include "engine/section_table.h"
#include "support/aligned_buffer.h"

namespace kiln::testing {

using engine::FileHeader;
using engine::SectionEntry;
using engine::SectionKind;

FileHeader header_of(const Bytes& bytes) {
  FileHeader header;
  std::memcpy(&header, bytes.data(), sizeof(header));
  return header;
}

std::vector<SectionEntry> sections_of(const Bytes& bytes) {
  std::vector<SectionEntry> sections(header_of(bytes).section_count);
  std::memcpy(sections.data(), bytes.data() + sizeof(FileHeader),
              sections.size() * sizeof(SectionEntry));
  return sections;
}

void seal(Bytes& bytes, FileHeader header, const std::vector<SectionEntry>& sections) {
  header.section_count = static_cast<uint32_t>(sections.size());
  header.hash = engine::header_hash(header, sections);
  std::memcpy(bytes.data(), &header, sizeof(header));
  std::memcpy(bytes.data() + sizeof(header), sections.data(),
              sections.size() * sizeof(SectionEntry));
}

Parts parts_of(const Bytes& bytes) {
  Parts parts;
  for (const SectionEntry& section : sections_of(bytes)) {
    const auto content = engine::bytes_of(bytes, section);
    Bytes copy(content.begin(), content.end());
    if (section.kind == SectionKind::Interface) parts.interface = std::move(copy);
    if (section.kind == SectionKind::Program) parts.programs.push_back(std::move(copy));
    if (section.kind == SectionKind::Code) parts.code.push_back(std::move(copy));
    if (section.kind == SectionKind::Weights) parts.weights = std::move(copy);
  }
  return parts;
}

Bytes assemble(const Parts& parts) {
  std::vector<SectionEntry> sections;
  std::vector<const Bytes*> contents;
  const auto add = [&](SectionKind kind, size_t index, const Bytes& content) {
    sections.push_back({kind, static_cast<uint32_t>(index), 0, content.size(), hash128(content)});
    contents.push_back(&content);
  };
  add(SectionKind::Interface, 0, parts.interface);
  for (size_t i = 0; i < parts.programs.size(); ++i)
    add(SectionKind::Program, i, parts.programs[i]);
  for (size_t i = 0; i < parts.code.size(); ++i) add(SectionKind::Code, i, parts.code[i]);
  if (parts.weights) add(SectionKind::Weights, 0, *parts.weights);

  uint64_t end = sizeof(FileHeader) + sections.size() * sizeof(SectionEntry);
  for (SectionEntry& section : sections) {
    section.offset = align_up(end, engine::section_alignment(section.kind));
    end = section.offset + section.size;
  }
  Bytes bytes(end);
  for (size_t i = 0; i < sections.size(); ++i)
    std::ranges::copy(*contents[i],
                      bytes.begin() + static_cast<std::ptrdiff_t>(sections[i].offset));
  FileHeader header;
  header.file_size = end;
  seal(bytes, header, sections);
  return bytes;
}

Bytes forged_table(const std::function<void(std::vector<SectionEntry>&)>& change) {
  Bytes bytes = make_sample_engine().bytes();
  std::vector<SectionEntry> sections = sections_of(bytes);
  change(sections);
  seal(bytes, header_of(bytes), sections);
  return bytes;
}

Bytes forged_spec(const std::function<void(engine::Spec&)>& change) {
  return forged(make_sample_engine(), change);
}

Bytes forged(const SampleEngine& sample, const std::function<void(engine::Spec&)>& change) {
  const Bytes bytes = sample.bytes();
  Parts parts = parts_of(bytes);
  engine::Spec spec = engine::read(bytes)->spec;
  change(spec);
  parts.interface = engine::encode_interface(spec);
  parts.programs.clear();
  parts.code.clear();
  for (const engine::ProgramSpec& program : spec.programs) {
    parts.programs.push_back(engine::encode_program(program));
    parts.code.emplace_back(program.code.begin(), program.code.end());
  }
  return assemble(parts);
}

}  // namespace kiln::testing
