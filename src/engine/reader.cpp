#include "engine/reader.h"

#include <algorithm>
#include <cstring>

#include "engine/format.h"
#include "engine/plan_codec.h"
#include "engine/validate.h"
#include "support/hash.h"

namespace kiln::engine {
namespace {

using Bytes = std::span<const std::byte>;

constexpr uint32_t kMostSections = 64;

Status invalid(const std::string& what) { return Status(StatusCode::InvalidEngine, what); }
Status damaged(const std::string& what) { return invalid("damaged engine: " + what); }

std::string section_name(const SectionEntry& section) {
  switch (section.kind) {
    case SectionKind::Plan:
      return "plan";
    case SectionKind::Code:
      return "code " + std::to_string(section.index);
    case SectionKind::Weights:
      return "weights";
  }
  return "section of kind " + std::to_string(static_cast<uint32_t>(section.kind));
}

uint64_t section_alignment(SectionKind kind) {
  return kind == SectionKind::Code || kind == SectionKind::Weights ? kPageSize : kPlanAlignment;
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
  if (header.format_version == 0) return damaged("format version 0");
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

// Sections lie inside the file, behind the table, aligned and apart from each other.
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

// The sections that this version knows; others come from later versions and are ignored.
struct KnownSections {
  const SectionEntry* plan = nullptr;
  const SectionEntry* weights = nullptr;
  std::vector<const SectionEntry*> code;  // by index
};

Result<KnownSections> sort_out(const std::vector<SectionEntry>& sections) {
  KnownSections known;
  known.code.resize(
      static_cast<size_t>(std::ranges::count(sections, SectionKind::Code, &SectionEntry::kind)));
  for (const SectionEntry& section : sections) {
    const SectionEntry** place = nullptr;
    if (section.kind == SectionKind::Plan) place = &known.plan;
    if (section.kind == SectionKind::Weights) place = &known.weights;
    if (section.kind == SectionKind::Code) {
      if (section.index >= known.code.size())
        return damaged("the " + section_name(section) + " is one too many");
      place = &known.code[section.index];
    }
    if (place == nullptr) continue;
    if (*place != nullptr) return damaged("the " + section_name(section) + " is there twice");
    *place = &section;
  }
  if (known.plan == nullptr) return damaged("no plan");
  return known;
}

Bytes bytes_of(Bytes file, const SectionEntry& section) {
  return file.subspan(section.offset, section.size);
}

Status check_hash(Bytes file, const SectionEntry& section) {
  if (hash128(bytes_of(file, section)) == section.hash) return Status();
  return damaged("the " + section_name(section) + " does not match its hash");
}

Status check_hashes(Bytes file, const KnownSections& known, bool verify_weights) {
  KILN_RETURN_IF_ERROR(check_hash(file, *known.plan));
  for (const SectionEntry* code : known.code) KILN_RETURN_IF_ERROR(check_hash(file, *code));
  return verify_weights && known.weights != nullptr ? check_hash(file, *known.weights) : Status();
}

// FlatBuffers reads numbers in place, so the plan must be aligned: engines in memory may not be.
Result<Spec> read_plan(Bytes plan) {
  if (reinterpret_cast<uintptr_t>(plan.data()) % kPlanAlignment == 0) return decode_plan(plan);
  struct alignas(kPlanAlignment) Block {
    std::byte bytes[kPlanAlignment];
  };
  std::vector<Block> copy(plan.size() / sizeof(Block) + 1);
  std::memcpy(copy.data(), plan.data(), plan.size());
  return decode_plan(std::as_bytes(std::span(copy)).first(plan.size()));
}

std::vector<SectionInfo> describe(const std::vector<SectionEntry>& sections, const Spec& spec) {
  std::vector<SectionInfo> infos;
  for (const SectionEntry& section : sections) {
    std::string name = section_name(section);
    if (section.kind == SectionKind::Code) name = "code:" + spec.variants[section.index].name;
    infos.push_back({std::move(name), section.offset, section.size, hash_str(section.hash)});
  }
  return infos;
}

}  // namespace

Result<View> read(std::span<const std::byte> bytes, const ReadOptions& options) {
  Result<FileHeader> header = read_header(bytes);
  if (!header.ok()) return header.status();
  Result<std::vector<SectionEntry>> sections = read_sections(bytes, *header);
  if (!sections.ok()) return sections.status();
  KILN_RETURN_IF_ERROR(check_bounds(*sections, bytes.size()));
  Result<KnownSections> known = sort_out(*sections);
  if (!known.ok()) return known.status();
  const bool stripped = known->weights == nullptr;
  if (stripped && header->format_version < 2) return damaged("no weights");
  KILN_RETURN_IF_ERROR(check_hashes(bytes, *known, options.verify_weights));

  Result<Spec> spec = read_plan(bytes_of(bytes, *known->plan));
  if (!spec.ok()) return spec.status();
  if (spec->variants.size() != known->code.size())
    return damaged(std::to_string(known->code.size()) + " code sections, expected " +
                   std::to_string(spec->variants.size()));
  for (size_t i = 0; i < known->code.size(); ++i)
    spec->variants[i].code = bytes_of(bytes, *known->code[i]);
  KILN_RETURN_IF_ERROR(
      validate(*spec, stripped ? std::nullopt : std::optional(known->weights->size)));

  View view;
  view.sections = describe(*sections, *spec);
  view.spec = std::move(*spec);
  view.stripped = stripped;
  if (!stripped) view.weights = bytes_of(bytes, *known->weights);
  view.content_hash = hash_str(header->hash);
  view.format_version = header->format_version;
  return view;
}

}  // namespace kiln::engine
