#include "engine/verify.h"

#include <algorithm>
#include <set>
#include <utility>

#include "engine/reader.h"
#include "engine/section_table.h"
#include "support/hash.h"

namespace kiln::engine {
namespace {

using Bytes = std::span<const std::byte>;

constexpr size_t kMostReports = 100;  // damaged constants that are told apart

class Verifier {
 public:
  explicit Verifier(Bytes bytes) : bytes_(bytes) {}

  std::vector<Damage> run() {
    if (read_table()) {
      view_ = read_interface(bytes_);
      for (const SectionEntry& section : sections_) check_section(section);
      check_gaps();
      check_contents();
    }
    return std::move(damages_);
  }

 private:
  void report(std::string where, uint64_t offset, uint64_t size, std::string what) {
    damages_.push_back({std::move(where), offset, size, std::move(what)});
  }

  // Without a table that can be trusted there is nothing more to say.
  bool read_table() {
    const Result<FileHeader> header = read_header(bytes_);
    if (!header.ok()) {
      report("header", 0, std::min<uint64_t>(bytes_.size(), sizeof(FileHeader)),
             header.status().message());
      return false;
    }
    Result<std::vector<SectionEntry>> sections = read_sections(bytes_, *header);
    Status status = sections.status();
    if (sections.ok()) status = check_bounds(*sections, bytes_.size());
    if (!status.ok()) {
      const uint64_t table = uint64_t{header->section_count} * sizeof(SectionEntry);
      report("header", 0, std::min<uint64_t>(bytes_.size(), sizeof(FileHeader) + table),
             status.message());
      return false;
    }
    sections_ = std::move(*sections);
    return true;
  }

  void check_section(const SectionEntry& section) {
    if (hash128(bytes_of(bytes_, section)) == section.hash) return;
    sound_ = false;
    if (section.kind == SectionKind::Weights) weights_ = &section;
    report(name_of(section), section.offset, section.size, "the contents do not match their hash");
  }

  // By the name of the program where the interface tells it: "code cpu:x86-64-v3".
  std::string name_of(const SectionEntry& section) const {
    const bool is_programs =
        section.kind == SectionKind::Program || section.kind == SectionKind::Code;
    if (!is_programs || !view_.ok()) return section_name(section);
    return section_kind_name(section.kind) + " " + view_->spec.programs[section.index].name();
  }

  // Between the sections in the order of the file.
  void check_gaps() {
    std::vector<SectionEntry> ordered = sections_;
    std::ranges::sort(ordered, {}, &SectionEntry::offset);
    uint64_t end = sizeof(FileHeader) + sections_.size() * sizeof(SectionEntry);
    for (const SectionEntry& section : ordered) {
      check_zeros(end, section.offset);
      end = section.offset + section.size;
    }
    check_zeros(end, bytes_.size());
  }

  void check_zeros(uint64_t begin, uint64_t end) {
    const Bytes gap = bytes_.subspan(begin, end - begin);
    const auto found = std::ranges::find_if(gap, [](std::byte b) { return b != std::byte{0}; });
    if (found == gap.end()) return;
    report("gap", begin + static_cast<uint64_t>(found - gap.begin()), 1,
           "a byte between the sections is not zero");
  }

  // What a reader says of the interface and the programs; and which weights are damaged, if they
  // are.
  void check_contents() {
    if (!view_.ok()) {
      if (sound_) report_section(SectionKind::Interface, 0, view_.status());
      return;
    }
    for (size_t i = 0; i < view_->spec.programs.size(); ++i) {
      const Status status = read_program(*view_, i);
      if (!status.ok() && sound_) report_section(SectionKind::Program, i, status);
    }
    if (weights_ != nullptr) check_constants(view_->spec);
  }

  void report_section(SectionKind kind, size_t index, const Status& status) {
    const auto found = std::ranges::find_if(sections_, [&](const SectionEntry& section) {
      return section.kind == kind && section.index == index;
    });
    if (found == sections_.end())
      report(section_kind_name(kind), 0, 0, status.message());
    else
      report(name_of(*found), found->offset, found->size, status.message());
  }

  void check_constants(const Spec& spec) {
    // Equal contents lie in one place, and no two overlap.
    std::set<std::pair<uint64_t, uint64_t>> seen;
    uint64_t left = weights_->size;  // a forged program may say otherwise
    size_t reports = 0;
    for (const ProgramSpec& program : spec.programs)
      for (size_t i = 0; i < program.buffers.size() && reports < kMostReports; ++i) {
        const BufferSpec& buffer = program.buffers[i];
        if (buffer.kind != BufferKind::Constant || buffer.content_hash == Hash128{}) continue;
        const uint64_t offset = weights_->offset + buffer.offset;
        if (!seen.insert({offset, buffer.constant_bytes}).second) continue;
        if (buffer.constant_bytes > left) return;
        left -= buffer.constant_bytes;
        const Bytes content = bytes_.subspan(offset, buffer.constant_bytes);
        if (hash128(content) == buffer.content_hash) continue;
        ++reports;
        report("weights", offset, buffer.constant_bytes,
               "constant " + std::to_string(i) + " of " + program.name() + user_of(program, i) +
                   " does not match its hash");
      }
  }

  // " (of the kernel linear_2: encoder.linear)"
  static std::string user_of(const ProgramSpec& program, size_t buffer) {
    constexpr size_t kMostSources = 4;
    for (const StepSpec& step : program.steps) {
      if (std::ranges::find(step.buffers, static_cast<int32_t>(buffer)) == step.buffers.end())
        continue;
      const KernelSpec& kernel = program.kernels[static_cast<size_t>(step.kernel)];
      std::string text = " (of the kernel " + kernel.name;
      for (size_t i = 0; i < std::min(kernel.sources.size(), kMostSources); ++i)
        text += (i == 0 ? ": " : ", ") + kernel.sources[i];
      return text + ")";
    }
    return "";
  }

  const Bytes bytes_;
  std::vector<SectionEntry> sections_;
  Result<View> view_ = Status(StatusCode::InvalidEngine, "not read yet");
  const SectionEntry* weights_ = nullptr;  // if they are damaged
  bool sound_ = true;                      // all hashes match
  std::vector<Damage> damages_;
};

}  // namespace

std::vector<Damage> verify(std::span<const std::byte> bytes) { return Verifier(bytes).run(); }

}  // namespace kiln::engine
