#include "engine/writer.h"

#include <algorithm>
#include <cstring>
#include <map>
#include <optional>
#include <utility>

#include "engine/codec.h"
#include "engine/format.h"
#include "engine/section_table.h"
#include "engine/validate.h"
#include "support/aligned_buffer.h"
#include "support/atomic_file.h"
#include "support/hash.h"

namespace kiln::engine {
namespace {

// Where the bytes of an engine go: positions never written read as zeros.
class Sink {
 public:
  virtual ~Sink() = default;
  virtual Status write_at(uint64_t offset, std::span<const std::byte> bytes) = 0;
};

class MemorySink : public Sink {
 public:
  explicit MemorySink(uint64_t size) : bytes_(size) {}
  Status write_at(uint64_t offset, std::span<const std::byte> bytes) override {
    std::ranges::copy(bytes, bytes_.begin() + static_cast<ptrdiff_t>(offset));
    return Status();
  }
  std::vector<std::byte> take() { return std::move(bytes_); }

 private:
  std::vector<std::byte> bytes_;
};

class FileSink : public Sink {
 public:
  explicit FileSink(AtomicFile& file) : file_(file) {}
  Status write_at(uint64_t offset, std::span<const std::byte> bytes) override {
    return file_.write_at(offset, bytes);
  }

 private:
  AtomicFile& file_;
};

// Bytes at an offset of the weights section.
struct Weight {
  uint64_t offset = 0;
  std::span<const std::byte> bytes;
};

// An engine whose every byte has its place.
struct Layout {
  Spec spec;  // with the constants' offsets
  std::vector<Weight> weights;
  std::vector<std::byte> interface;
  std::vector<std::vector<std::byte>> programs;
  std::vector<SectionEntry> sections;  // hashes are filled in while writing
  uint64_t file_size = 0;
};

Status internal_error(const std::string& what) {
  return Status(StatusCode::Internal, "internal error: " + what);
}

// Gives equal contents one place. In the order of programs and buffers, so that the same spec gives
// the same bytes.
class WeightPlacer {
 public:
  explicit WeightPlacer(std::vector<Weight>& weights) : weights_(weights) {}

  void place(BufferSpec& buffer, std::span<const std::byte> bytes) {
    buffer.constant_bytes = bytes.size();
    // Programs share most of their constants, and so the memory of them.
    const auto [known, fresh] = by_memory_.try_emplace({bytes.data(), bytes.size()});
    if (fresh) known->second = place_content(bytes);
    buffer.offset = known->second.offset;
    buffer.content_hash = known->second.hash;
  }
  uint64_t end() const { return end_; }

 private:
  struct Place {
    uint64_t offset = 0;
    Hash128 hash{};
  };

  Place place_content(std::span<const std::byte> bytes) {
    const Hash128 hash = hash128(bytes);
    const auto [first, last] = by_hash_.equal_range(hash);
    const auto same = std::find_if(first, last, [&](const auto& entry) {
      return std::ranges::equal(weights_[entry.second].bytes, bytes);
    });
    if (same != last) return {weights_[same->second].offset, hash};
    const uint64_t offset = end_;
    by_hash_.emplace(hash, weights_.size());
    weights_.push_back({offset, bytes});
    end_ = align_up(end_ + bytes.size(), kConstantAlignment);
    return {offset, hash};
  }

  std::vector<Weight>& weights_;
  std::map<std::pair<const std::byte*, size_t>, Place> by_memory_;  // never iterated
  std::multimap<Hash128, size_t> by_hash_;
  uint64_t end_ = 0;
};

// Calls visit(buffer, its bytes) for all constants that the file holds.
template <typename Visit>
void for_each_constant(Spec& spec, Constants constants, const Visit& visit) {
  for (size_t p = 0; p < spec.programs.size(); ++p)
    for (size_t i = 0; i < spec.programs[p].buffers.size(); ++i)
      if (BufferSpec& buffer = spec.programs[p].buffers[i];
          buffer.kind == BufferKind::Constant && !buffer.is_made_at_load())
        visit(buffer, constants[p][i]);
}

uint64_t place_weights(Spec& spec, Constants constants, std::vector<Weight>& weights) {
  WeightPlacer placer(weights);
  for_each_constant(spec, constants, [&](BufferSpec& buffer, std::span<const std::byte> bytes) {
    placer.place(buffer, bytes);
  });
  return placer.end();
}

// Where equal contents lie together depends on the contents.
void forget_places(Spec& spec, Constants constants) {
  for_each_constant(spec, constants, [](BufferSpec& buffer, std::span<const std::byte> bytes) {
    buffer.constant_bytes = bytes.size();
    buffer.content_hash = {};
    buffer.offset = 0;
  });
}

bool has_constants(const Spec& spec) {
  return std::ranges::any_of(spec.programs, [](const ProgramSpec& program) {
    return std::ranges::count(program.buffers, BufferKind::Constant, &BufferSpec::kind) > 0;
  });
}

// Sections follow each other in the order of this table.
void place_sections(Layout& layout, std::optional<uint64_t> weights_size) {
  auto& sections = layout.sections;
  const auto add = [&](SectionKind kind, size_t index, uint64_t size) {
    sections.push_back({kind, static_cast<uint32_t>(index), 0, size, {}});
  };
  const size_t programs = layout.programs.size();
  add(SectionKind::Interface, 0, layout.interface.size());
  for (size_t i = 0; i < programs; ++i) add(SectionKind::Program, i, layout.programs[i].size());
  for (size_t i = 0; i < programs; ++i)
    add(SectionKind::Code, i, layout.spec.programs[i].code.size());
  if (weights_size) add(SectionKind::Weights, 0, *weights_size);

  uint64_t end = sizeof(FileHeader) + sections.size() * sizeof(SectionEntry);
  for (SectionEntry& section : sections) {
    section.offset = align_up(end, section_alignment(section.kind));
    end = section.offset + section.size;
  }
  layout.file_size = end;
}

Status check_constants(const Spec& spec, Constants constants) {
  bool fits = constants.size() == spec.programs.size();
  for (size_t p = 0; fits && p < constants.size(); ++p)
    fits = constants[p].size() == spec.programs[p].buffers.size();
  return fits ? Status() : internal_error("got other constants than one per buffer of a program");
}

Status check_rules(const Spec& spec, std::optional<uint64_t> weights_size) {
  if (spec.programs.size() > kMostPrograms)
    return internal_error("got " + std::to_string(spec.programs.size()) +
                          " programs, expected at most " + std::to_string(kMostPrograms));
  Status status = validate_interface(spec);
  for (size_t i = 0; status.ok() && i < spec.programs.size(); ++i)
    if (unknown_of(spec.programs[i]).empty())
      status = validate_program(spec, spec.programs[i], weights_size);
  return status.ok() ? status : internal_error(status.message());
}

Result<Layout> make_layout(const Spec& spec, Constants constants, Weights weights) {
  KILN_RETURN_IF_ERROR(check_constants(spec, constants));
  Layout layout;
  layout.spec = spec;
  std::optional<uint64_t> weights_size;
  if (weights == Weights::Included || !has_constants(spec))
    weights_size = place_weights(layout.spec, constants, layout.weights);
  else
    forget_places(layout.spec, constants);
  KILN_RETURN_IF_ERROR(check_rules(layout.spec, weights_size));
  layout.interface = encode_interface(layout.spec);
  for (const ProgramSpec& program : layout.spec.programs)
    layout.programs.push_back(encode_program(program));
  place_sections(layout, weights_size);
  return layout;
}

Status emit_bytes(SectionEntry& section, std::span<const std::byte> bytes, Sink& sink) {
  section.hash = hash128(bytes);
  return sink.write_at(section.offset, bytes);
}

Status emit_weights(SectionEntry& section, const std::vector<Weight>& weights, Sink& sink) {
  Hasher hasher;
  uint64_t end = 0;
  for (const Weight& weight : weights) {
    KILN_RETURN_IF_ERROR(sink.write_at(section.offset + weight.offset, weight.bytes));
    hasher.update_zeros(weight.offset - end);
    hasher.update(weight.bytes);
    end = weight.offset + weight.bytes.size();
  }
  hasher.update_zeros(section.size - end);
  section.hash = hasher.finish();
  return Status();
}

Status emit_section(const Layout& layout, SectionEntry& section, Sink& sink) {
  switch (section.kind) {
    case SectionKind::Interface:
      return emit_bytes(section, layout.interface, sink);
    case SectionKind::Program:
      return emit_bytes(section, layout.programs[section.index], sink);
    case SectionKind::Code:
      return emit_bytes(section, layout.spec.programs[section.index].code, sink);
    case SectionKind::Weights:
      return emit_weights(section, layout.weights, sink);
  }
  return Status();
}

// The header comes last: it has the hashes of the rest.
Status emit(Layout& layout, Sink& sink) {
  for (SectionEntry& section : layout.sections)
    KILN_RETURN_IF_ERROR(emit_section(layout, section, sink));
  FileHeader header;
  if (!layout.spec.data_sizes.empty()) header.format_version = kFormatVersion;
  header.section_count = static_cast<uint32_t>(layout.sections.size());
  header.file_size = layout.file_size;
  header.hash = header_hash(header, layout.sections);
  KILN_RETURN_IF_ERROR(sink.write_at(0, std::as_bytes(std::span(&header, 1))));
  return sink.write_at(sizeof(header), std::as_bytes(std::span(layout.sections)));
}

}  // namespace

Result<std::vector<std::byte>> write(const Spec& spec, Constants constants, Weights weights) {
  Result<Layout> layout = make_layout(spec, constants, weights);
  if (!layout.ok()) return layout.status();
  MemorySink sink(layout->file_size);
  KILN_RETURN_IF_ERROR(emit(*layout, sink));
  return sink.take();
}

Status write_file(const Spec& spec, Constants constants, const std::string& path, Weights weights) {
  Result<Layout> layout = make_layout(spec, constants, weights);
  if (!layout.ok()) return layout.status();
  Result<AtomicFile> file = AtomicFile::create(path);
  if (!file.ok()) return file.status();
  FileSink sink(*file);
  KILN_RETURN_IF_ERROR(emit(*layout, sink));
  KILN_RETURN_IF_ERROR(file->resize(layout->file_size));  // the last weight may end in padding
  return file->commit();
}

}  // namespace kiln::engine
