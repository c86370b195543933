#include "compiler/verify_file.h"

#include <cstring>
#include <span>
#include <utility>

#include "compiler/driver.h"
#include "engine/mark.h"
#include "import/archive.h"
#include "support/crc32.h"
#include "support/file_map.h"

namespace kiln {
namespace {

using Bytes = std::span<const std::byte>;

constexpr uint32_t kZipStart = 0x04034b50;

bool begins_like_archive(Bytes bytes) {
  uint32_t start = 0;
  if (bytes.size() < sizeof(start)) return false;
  std::memcpy(&start, bytes.data(), sizeof(start));
  return start == kZipStart;
}

// Checks the engine that is part of a file; `name` is empty where it is the whole.
void check_engine(Bytes file, const std::string& name, Bytes engine, FileReport& report) {
  const auto start = static_cast<uint64_t>(engine.data() - file.data());
  report.engines.push_back({name, start, engine.size()});
  for (engine::Damage& damage : engine::verify(engine)) {
    damage.offset += start;
    if (!name.empty()) damage.where = name + ": " + damage.where;
    report.damages.push_back(std::move(damage));
  }
}

void check_archive(Bytes file, FileReport& report) {
  const import::Archive archive(file, import::Archive::Compressed::Listed);
  for (const auto& [name, entry] : archive.entries()) {
    if (!entry.stored) {
      report.unchecked.push_back(name);
      continue;
    }
    const size_t before = report.damages.size();
    if (engine::mark_of(entry.bytes)) check_engine(file, name, entry.bytes, report);
    if (report.damages.size() == before && crc32(entry.bytes) != entry.crc)
      report.damages.push_back({name, static_cast<uint64_t>(entry.bytes.data() - file.data()),
                                entry.bytes.size(), "the contents do not match their checksum"});
  }
}

}  // namespace

FileReport verify_file(const std::string& path) {
  const Result<FileMap> map = FileMap::open(path);
  if (!map.ok()) throw StatusError(map.status());
  FileReport report;
  if (begins_like_archive(map->bytes()))
    check_archive(map->bytes(), report);
  else
    check_engine(map->bytes(), "", map->bytes(), report);
  return report;
}

}  // namespace kiln
