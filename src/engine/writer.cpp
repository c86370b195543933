#include "engine/writer.h"

#include <algorithm>
#include <cstring>
#include <map>
#include <optional>

#include "engine/format.h"
#include "engine/plan_codec.h"
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
  std::vector<std::byte> plan;
  std::vector<SectionEntry> sections;  // hashes are filled in while writing
  uint64_t file_size = 0;
};

Status internal_error(const std::string& what) {
  return Status(StatusCode::Internal, "internal error: " + what);
}

// Gives equal contents one place. In the order of the buffers, so that the same spec gives the same
// bytes.
uint64_t place_weights(Spec& spec, Constants constants, std::vector<Weight>& weights) {
  std::multimap<Hash128, size_t> placed;
  uint64_t end = 0;
  for (size_t i = 0; i < spec.buffers.size(); ++i) {
    BufferSpec& buffer = spec.buffers[i];
    if (buffer.kind != BufferKind::Constant) continue;
    const std::span<const std::byte> bytes = constants[i];
    buffer.constant_bytes = bytes.size();
    const Hash128 hash = hash128(bytes);
    buffer.content_hash = hash;
    const auto [first, last] = placed.equal_range(hash);
    const auto same = std::find_if(first, last, [&](const auto& entry) {
      return std::ranges::equal(weights[entry.second].bytes, bytes);
    });
    if (same != last) {
      buffer.offset = weights[same->second].offset;
      continue;
    }
    buffer.offset = end;
    placed.emplace(hash, weights.size());
    weights.push_back({end, bytes});
    end = align_up(end + bytes.size(), kConstantAlignment);
  }
  return end;
}

// Sections follow each other in the order of this table.
void place_sections(Layout& layout, std::optional<uint64_t> weights_size) {
  auto& sections = layout.sections;
  sections.push_back({SectionKind::Plan, 0, 0, layout.plan.size(), {}});
  for (size_t i = 0; i < layout.spec.variants.size(); ++i)
    sections.push_back(
        {SectionKind::Code, static_cast<uint32_t>(i), 0, layout.spec.variants[i].code.size(), {}});
  if (weights_size) sections.push_back({SectionKind::Weights, 0, 0, *weights_size, {}});

  uint64_t end = sizeof(FileHeader) + sections.size() * sizeof(SectionEntry);
  for (SectionEntry& section : sections) {
    section.offset = align_up(end, section.kind == SectionKind::Plan ? kPlanAlignment : kPageSize);
    end = section.offset + section.size;
  }
  layout.file_size = end;
}

// Where equal contents lie together depends on the contents.
void forget_places(Spec& spec, Constants constants) {
  for (size_t i = 0; i < spec.buffers.size(); ++i) {
    BufferSpec& buffer = spec.buffers[i];
    if (buffer.kind != BufferKind::Constant) continue;
    buffer.constant_bytes = constants[i].size();
    buffer.content_hash = {};
    buffer.offset = 0;
  }
}

bool has_constants(const Spec& spec) {
  return std::ranges::any_of(
      spec.buffers, [](const BufferSpec& buffer) { return buffer.kind == BufferKind::Constant; });
}

Result<Layout> make_layout(const Spec& spec, Constants constants, Weights weights) {
  if (constants.size() != spec.buffers.size())
    return internal_error("got " + std::to_string(constants.size()) + " constants, expected " +
                          std::to_string(spec.buffers.size()) + ", one per buffer");
  Layout layout{.spec = spec, .weights = {}, .plan = {}, .sections = {}, .file_size = 0};
  std::optional<uint64_t> weights_size;
  if (weights == Weights::Included || !has_constants(spec))
    weights_size = place_weights(layout.spec, constants, layout.weights);
  else
    forget_places(layout.spec, constants);
  if (Status status = validate(layout.spec, weights_size); !status.ok())
    return internal_error(status.message());
  layout.plan = encode_plan(layout.spec);
  place_sections(layout, weights_size);
  return layout;
}

Status emit_section(SectionEntry& section, std::span<const std::byte> bytes, Sink& sink) {
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

bool is_stripped(const Layout& layout) {
  return layout.sections.empty() || layout.sections.back().kind != SectionKind::Weights;
}

// The header comes last: it has the hashes of the rest.
Status emit(Layout& layout, Sink& sink) {
  for (SectionEntry& section : layout.sections) {
    if (section.kind == SectionKind::Plan)
      KILN_RETURN_IF_ERROR(emit_section(section, layout.plan, sink));
    else if (section.kind == SectionKind::Code)
      KILN_RETURN_IF_ERROR(emit_section(section, layout.spec.variants[section.index].code, sink));
    else
      KILN_RETURN_IF_ERROR(emit_weights(section, layout.weights, sink));
  }
  FileHeader header;
  header.format_version = is_stripped(layout) ? 2 : 1;
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
