#include "engine/reader.h"

#include <algorithm>
#include <cstring>
#include <optional>
#include <utility>

#include "engine/codec.h"
#include "engine/format.h"
#include "engine/section_table.h"
#include "engine/validate.h"
#include "support/hash.h"

namespace kiln::engine {
namespace {

using Bytes = std::span<const std::byte>;

// The sections that this version knows; others come from later versions and are ignored.
struct KnownSections {
  const SectionEntry* interface = nullptr;
  const SectionEntry* weights = nullptr;
  std::vector<const SectionEntry*> programs, code;  // by index
};

std::vector<const SectionEntry*> places_for(const std::vector<SectionEntry>& sections,
                                            SectionKind kind) {
  const auto count = std::ranges::count(sections, kind, &SectionEntry::kind);
  return std::vector<const SectionEntry*>(static_cast<size_t>(count), nullptr);
}

// Where a section belongs; null for one that there is no place for.
const SectionEntry** place_of(KnownSections& known, const SectionEntry& section) {
  const auto at = [&](std::vector<const SectionEntry*>& list) {
    return section.index < list.size() ? &list[section.index] : nullptr;
  };
  switch (section.kind) {
    case SectionKind::Interface:
      return &known.interface;
    case SectionKind::Program:
      return at(known.programs);
    case SectionKind::Code:
      return at(known.code);
    case SectionKind::Weights:
      return &known.weights;
  }
  return nullptr;
}

bool is_known(SectionKind kind) {
  return kind >= SectionKind::Interface && kind <= SectionKind::Weights;
}

Result<KnownSections> sort_out(const std::vector<SectionEntry>& sections) {
  KnownSections known;
  known.programs = places_for(sections, SectionKind::Program);
  known.code = places_for(sections, SectionKind::Code);
  for (const SectionEntry& section : sections) {
    if (!is_known(section.kind)) continue;
    const SectionEntry** place = place_of(known, section);
    if (place == nullptr) return damaged("the " + section_name(section) + " is one too many");
    if (*place != nullptr) return damaged("the " + section_name(section) + " is there twice");
    *place = &section;
  }
  if (known.interface == nullptr) return damaged("no interface");
  return known;
}

Status check_hash(Bytes file, const SectionEntry& section, const std::string& name) {
  if (hash128(bytes_of(file, section)) == section.hash) return Status();
  return damaged("the " + name + " does not match its hash");
}

// FlatBuffers reads numbers in place, so tables must be aligned: engines in memory may not be.
template <typename Decode>
auto decode_aligned(Bytes table, const Decode& decode) {
  if (reinterpret_cast<uintptr_t>(table.data()) % kTableAlignment == 0) return decode(table);
  struct alignas(kTableAlignment) Block {
    std::byte bytes[kTableAlignment];
  };
  std::vector<Block> copy(table.size() / sizeof(Block) + 1);
  std::memcpy(copy.data(), table.data(), table.size());
  return decode(std::as_bytes(std::span(copy)).first(table.size()));
}

Status check_program_sections(const KnownSections& known, size_t programs) {
  for (const auto& [name, list] :
       {std::pair("program", &known.programs), std::pair("code", &known.code)})
    if (list->size() != programs)
      return damaged(std::to_string(list->size()) + " " + name + " sections, expected " +
                     std::to_string(programs));
  return Status();
}

std::vector<SectionInfo> describe(const std::vector<SectionEntry>& sections, const Spec& spec) {
  std::vector<SectionInfo> infos;
  for (const SectionEntry& section : sections) {
    std::string name = section_name(section);
    if (section.kind == SectionKind::Program || section.kind == SectionKind::Code)
      name = section_kind_name(section.kind) + ":" + spec.programs[section.index].name();
    infos.push_back({std::move(name), section.offset, section.size, hash_str(section.hash)});
  }
  return infos;
}

// What has to do with the interface of a file whose sections are known.
Result<View> make_view(Bytes bytes, const std::vector<SectionEntry>& sections,
                       const KnownSections& known) {
  Result<Spec> spec = decode_aligned(bytes_of(bytes, *known.interface), decode_interface);
  if (!spec.ok()) return spec.status();
  KILN_RETURN_IF_ERROR(check_program_sections(known, spec->programs.size()));
  KILN_RETURN_IF_ERROR(validate_interface(*spec));
  View view;
  view.sections = describe(sections, *spec);
  for (size_t i = 0; i < spec->programs.size(); ++i) {
    view.programs.push_back({*known.programs[i], *known.code[i]});
    spec->programs[i].code = bytes_of(bytes, *known.code[i]);
  }
  view.spec = std::move(*spec);
  view.bytes = bytes;
  view.stripped = known.weights == nullptr;
  if (!view.stripped) view.weights = bytes_of(bytes, *known.weights);
  return view;
}

// Keeps of a program what says which it is.
void forget_body(ProgramSpec& program) {
  program.program_hash.clear();
  program.sizes.clear();
  program.buffers.clear();
  program.kernels.clear();
  program.steps.clear();
  program.data_sizes.clear();
  program.repeats.clear();
}

}  // namespace

Result<View> read_interface(std::span<const std::byte> bytes, const ReadOptions& options) {
  Result<FileHeader> header = read_header(bytes);
  if (!header.ok()) return header.status();
  Result<std::vector<SectionEntry>> sections = read_sections(bytes, *header);
  if (!sections.ok()) return sections.status();
  KILN_RETURN_IF_ERROR(check_bounds(*sections, bytes.size()));
  Result<KnownSections> known = sort_out(*sections);
  if (!known.ok()) return known.status();
  KILN_RETURN_IF_ERROR(check_hash(bytes, *known->interface, "interface"));
  if (options.verify_weights && known->weights != nullptr)
    KILN_RETURN_IF_ERROR(check_hash(bytes, *known->weights, "weights"));
  Result<View> view = make_view(bytes, *sections, *known);
  if (!view.ok()) return view.status();
  view->content_hash = hash_str(header->hash);
  view->format_version = header->format_version;
  return view;
}

namespace {

Status read_body(View& view, ProgramSpec& program, const ProgramSections& sections) {
  KILN_RETURN_IF_ERROR(check_hash(view.bytes, sections.body, "program " + program.name()));
  KILN_RETURN_IF_ERROR(check_hash(view.bytes, sections.code, "code " + program.name()));
  program.unknown = unknown_of_head(program);
  if (!program.unknown.empty()) return Status();
  KILN_RETURN_IF_ERROR(decode_aligned(bytes_of(view.bytes, sections.body),
                                      [&](Bytes body) { return decode_program(body, program); }));
  program.unknown = unknown_of(program);
  if (!program.unknown.empty()) return Status();
  return validate_program(view.spec, program,
                          view.stripped ? std::nullopt : std::optional(view.weights.size()));
}

}  // namespace

Status read_program(View& view, size_t index) {
  ProgramSpec& program = view.spec.programs[index];
  Status status = read_body(view, program, view.programs[index]);
  if (!status.ok() || !program.unknown.empty()) forget_body(program);
  return status;
}

Result<View> read(std::span<const std::byte> bytes, const ReadOptions& options) {
  Result<View> view = read_interface(bytes, options);
  for (size_t i = 0; view.ok() && i < view->spec.programs.size(); ++i)
    KILN_RETURN_IF_ERROR(read_program(*view, i));
  return view;
}

}  // namespace kiln::engine
