#include "compiler/timing_cache.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <memory>
#include <span>
#include <vector>

#include "compiler/cache_files.h"
#include "support/atomic_file.h"
#include "support/errno_status.h"
#include "support/folder.h"

namespace kiln {
namespace {

using backend::Timings;
using Bytes = std::vector<std::byte>;

// The file: kMagic, the number of entries, the entries, and the hash of all that. Little-endian.
constexpr char kMagic[9] = "KILNTIM1";
constexpr size_t kMagicBytes = 8, kHeadBytes = 16, kEntryBytes = 24;
constexpr size_t kMostEntries = size_t{1} << 16;
constexpr size_t kMostBytes = kHeadBytes + kMostEntries * kEntryBytes + sizeof(Hash128);

struct Place {
  std::string directory, name;
};

Place place_of(const std::string& path) {
  const size_t slash = path.rfind('/');
  if (slash == std::string::npos) return {".", path};
  return {slash == 0 ? "/" : path.substr(0, slash), path.substr(slash + 1)};
}

bool begins_like_one(std::span<const std::byte> bytes) {
  return bytes.size() >= kMagicBytes && std::memcmp(bytes.data(), kMagic, kMagicBytes) == 0;
}

// Nothing for damaged bytes.
std::optional<Timings> decode(std::span<const std::byte> bytes) {
  uint64_t count = 0;
  if (bytes.size() < kHeadBytes + sizeof(Hash128) || !begins_like_one(bytes)) return std::nullopt;
  std::memcpy(&count, bytes.data() + kMagicBytes, sizeof(count));
  if (count > kMostEntries || bytes.size() != kHeadBytes + count * kEntryBytes + sizeof(Hash128))
    return std::nullopt;
  const auto body = bytes.first(bytes.size() - sizeof(Hash128));
  const Hash128 hash = hash128(body);
  if (std::memcmp(hash.data(), body.data() + body.size(), sizeof(hash)) != 0) return std::nullopt;
  Timings timings;
  for (size_t i = 0; i < count; ++i) {
    const std::byte* entry = body.data() + kHeadBytes + i * kEntryBytes;
    Hash128 key;
    uint64_t fastest = 0;
    std::memcpy(key.data(), entry, sizeof(key));
    std::memcpy(&fastest, entry + sizeof(key), sizeof(fastest));
    if (fastest <= UINT32_MAX) timings[key] = static_cast<uint32_t>(fastest);
  }
  return timings;
}

Bytes encode(const Timings& timings) {
  const uint64_t count = timings.size();
  Bytes bytes(kHeadBytes + count * kEntryBytes + sizeof(Hash128));
  std::memcpy(bytes.data(), kMagic, kMagicBytes);
  std::memcpy(bytes.data() + kMagicBytes, &count, sizeof(count));
  std::byte* entry = bytes.data() + kHeadBytes;
  for (const auto& [key, fastest] : timings) {
    const uint64_t wide = fastest;
    std::memcpy(entry, key.data(), sizeof(key));
    std::memcpy(entry + sizeof(key), &wide, sizeof(wide));
    entry += kEntryBytes;
  }
  const Hash128 hash = hash128(std::span(bytes).first(bytes.size() - sizeof(Hash128)));
  std::memcpy(entry, hash.data(), sizeof(hash));
  return bytes;
}

// What is found joined to what is there, of which as much goes as is too many.
Timings join(Timings there, const Timings& found) {
  for (const auto& [key, fastest] : found) there[key] = fastest;
  for (auto at = there.begin(); at != there.end() && there.size() > kMostEntries;)
    at = found.contains(at->first) ? std::next(at) : there.erase(at);
  return there;
}

struct Contents {
  bool there = false, foreign = false, damaged = false;
  Timings timings;
};

Result<Contents> read_from(const Folder& folder, const std::string& name, const std::string& path) {
  const FileDescriptor file = folder.open_file(name, O_RDONLY);
  if (!file.is_open() && errno == ENOENT) return Contents();
  if (!file.is_open()) return errno_status("read the timing cache", path, errno);
  struct stat info;
  if (fstat(file.get(), &info) != 0) return errno_status("read the timing cache", path, errno);
  Contents contents{.there = true};
  contents.foreign = !S_ISREG(info.st_mode) || info.st_size > static_cast<off_t>(kMostBytes);
  if (contents.foreign) return contents;
  const Result<Bytes> bytes = read_all(file, path);
  if (!bytes.ok()) return bytes.status();
  contents.foreign = !bytes->empty() && !begins_like_one(*bytes);
  auto timings = decode(*bytes);
  contents.damaged = !timings && !contents.foreign;
  if (timings) contents.timings = std::move(*timings);
  return contents;
}

Status refused(const std::string& path) {
  return Status(
      StatusCode::InvalidArgument,
      "the file " + path +
          " is not a timing cache of Kiln: it is left as it is, and nothing is kept; give "
          "the path of another file");
}

}  // namespace

Result<Timings> TimingCache::read() const {
  const Place place = place_of(path_);
  const auto folder = Folder::open(place.directory);
  if (!folder && errno == ENOENT) return Timings();
  if (!folder) return errno_status("read the timing cache", path_, errno);
  Result<Contents> contents = read_from(*folder, place.name, path_);
  if (!contents.ok()) return contents.status();
  if (contents->foreign) return refused(path_);
  if (contents->damaged)
    return Status(StatusCode::IoError, "the timing cache " + path_ +
                                           " is damaged: kernels are timed again, and it is "
                                           "replaced");
  return std::move(contents->timings);
}

Status TimingCache::add(const Timings& found) const {
  const Place place = place_of(path_);
  KILN_RETURN_IF_ERROR(make_private_directory(place.directory, "folder of the timing cache"));
  auto opened = Folder::open(place.directory);
  if (!opened) return errno_status("write the timing cache", path_, errno);
  const auto folder = std::make_shared<const Folder>(std::move(*opened));
  // No other process joins at the same time. Where the file system has no locks, the last one wins.
  const FileDescriptor locked = folder->open_file(".", O_RDONLY | O_DIRECTORY);
  if (locked.is_open()) flock(locked.get(), LOCK_EX);
  const Result<Contents> contents = read_from(*folder, place.name, path_);
  if (!contents.ok()) return contents.status();
  if (contents->foreign) return refused(path_);
  const Bytes bytes = encode(join(contents->timings, found));
  Result<AtomicFile> file = AtomicFile::create_in(folder, place.name);
  if (!file.ok()) return file.status();
  KILN_RETURN_IF_ERROR(file->write_at(0, bytes));
  return file->commit();
}

}  // namespace kiln
