// Engine files: read as they come, and once more with hashes that match, so that the plan's own
// checks are reached.
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <vector>

#include "engine/format.h"
#include "engine/reader.h"
#include "engine/verify.h"
#include "runtime/describe.h"
#include "runtime/engine.h"

namespace {

using kiln::engine::FileHeader;
using kiln::engine::SectionEntry;

// Kernels are not run: an engine is code, and a forged one may do anything.
void load(std::span<const std::byte> bytes) {
  for (const bool describe_only : {false, true}) {
    const auto engine = kiln::runtime::Engine::load_memory(
        bytes, {.verify_weights = true, .describe_only = describe_only});
    if (engine.ok()) (void)kiln::runtime::describe(**engine);
  }
  (void)kiln::engine::verify(bytes);
}

void reseal(std::vector<std::byte>& bytes) {
  FileHeader header;
  if (bytes.size() < sizeof(header)) return;
  std::memcpy(&header, bytes.data(), sizeof(header));
  header.magic = kiln::engine::kMagic;
  header.format_version = kiln::engine::kFormatVersion;
  header.file_size = bytes.size();
  if (header.section_count > (bytes.size() - sizeof(header)) / sizeof(SectionEntry)) return;
  std::vector<SectionEntry> sections(header.section_count);
  const auto table = std::as_writable_bytes(std::span(sections));
  if (!table.empty()) std::memcpy(table.data(), bytes.data() + sizeof(header), table.size());
  for (SectionEntry& section : sections)
    if (section.offset <= bytes.size() && section.size <= bytes.size() - section.offset)
      section.hash = kiln::hash128(std::span(bytes).subspan(section.offset, section.size));
  header.hash = kiln::engine::header_hash(header, sections);
  std::memcpy(bytes.data(), &header, sizeof(header));
  if (!table.empty()) std::memcpy(bytes.data() + sizeof(header), table.data(), table.size());
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto input = std::as_bytes(std::span(data, size));
  load(input);
  std::vector<std::byte> sealed(input.begin(), input.end());
  reseal(sealed);
  load(sealed);
  return 0;
}
