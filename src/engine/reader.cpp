#include "engine/reader.h"

#include <algorithm>
#include <cstring>

#include "engine/format.h"
#include "engine/plan_codec.h"
#include "engine/section_table.h"
#include "engine/validate.h"
#include "support/hash.h"

namespace kiln::engine {
namespace {

using Bytes = std::span<const std::byte>;

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
