#include "compiler/engine_cache.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <optional>

#include "compiler/cache_files.h"
#include "engine/mark.h"
#include "engine/reader.h"
#include "support/atomic_file.h"
#include "support/errno_status.h"
#include "support/hash.h"

namespace kiln {
namespace {

using Bytes = std::vector<std::byte>;

constexpr std::string_view kEnding = ".kiln";
constexpr size_t kLongestKey = 128;

bool is_key(std::string_view key) {
  return !key.empty() && key.size() <= kLongestKey && std::ranges::all_of(key, [](char c) {
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' ||
           c == '-';
  });
}

// Keys come from users' code too: nothing that could lead out of the folder.
Status check_key(const std::string& key) {
  if (is_key(key)) return Status();
  return Status(StatusCode::InvalidArgument, "[engine cache] got the key \"" + key +
                                                 "\", expected 1 to 128 letters, digits, - or _");
}

std::string name_of(const std::string& key) { return key + std::string(kEnding); }

// Never 0, which is what engines outside of a cache have.
uint64_t mark_of_key(std::string_view key) {
  const std::string text = "entry of an engine cache: " + std::string(key);
  const Hash128 hash = hash128(std::as_bytes(std::span(text)));
  uint64_t mark = 0;
  std::memcpy(&mark, hash.data(), sizeof(mark));
  return mark | 1;
}

// Whether an open file is the entry of a key.
bool is_entry(const FileDescriptor& file, std::string_view key) {
  struct stat info;
  std::array<std::byte, engine::kMarkBytes> start;
  return file.is_open() && fstat(file.get(), &info) == 0 && S_ISREG(info.st_mode) &&
         pread(file.get(), start.data(), start.size(), 0) == static_cast<ssize_t>(start.size()) &&
         engine::mark_of(start) == mark_of_key(key);
}

bool is_entry(const Folder& folder, const std::string& key) {
  return is_entry(folder.open_file(name_of(key), O_RDONLY), key);
}

}  // namespace

Result<EngineCache> EngineCache::open(const std::string& directory, uint64_t max_bytes) {
  Result<Folder> folder = open_private_folder(directory, "engine cache");
  if (!folder.ok()) return folder.status();
  return EngineCache(std::move(*folder), max_bytes == 0 ? kDefaultCacheBytes : max_bytes);
}

Result<Bytes> EngineCache::find(const std::string& key) const {
  KILN_RETURN_IF_ERROR(check_key(key));
  const std::string name = name_of(key), path = folder_->path_of(name);
  const FileDescriptor file = folder_->open_file(name, O_RDONLY);
  if (!is_entry(file, key))
    return Status(StatusCode::NotFound, "the engine cache has no entry " + path);
  Result<Bytes> bytes = read_all(file, path);
  if (!bytes.ok()) return bytes.status();
  if (const auto view = engine::read(*bytes, {.verify_weights = true}); !view.ok()) {
    folder_->remove(name);
    return Status(view.status().code(),
                  "removed the damaged entry " + path + ": " + view.status().message());
  }
  std::ranges::copy(engine::marked_start(*bytes, 0), bytes->begin());
  futimens(file.get(), nullptr);  // a failure only makes the entry look older
  return bytes;
}

Status EngineCache::store(const std::string& key, std::span<const std::byte> engine) const {
  KILN_RETURN_IF_ERROR(check_key(key));
  if (engine.size() > max_bytes_)
    return Status(StatusCode::OutOfRange, "[engine cache] got an engine of " +
                                              std::to_string(engine.size()) +
                                              " bytes, expected at most " +
                                              std::to_string(max_bytes_) + ", the cache's size");
  const Result<engine::View> view = engine::read(engine);
  if (!view.ok()) return view.status();
  const std::string name = name_of(key);
  if (folder_->find(name) && !is_entry(*folder_, key))
    return Status(
        StatusCode::InvalidArgument,
        "[engine cache] the file " + folder_->path_of(name) +
            " is not an entry of the cache: it is left as it is, and the engine is not kept");
  const Bytes start = engine::marked_start(engine, mark_of_key(key));
  Result<AtomicFile> file = AtomicFile::create_in(folder_, name);
  if (!file.ok()) return file.status();
  KILN_RETURN_IF_ERROR(file->write_at(0, start));
  KILN_RETURN_IF_ERROR(file->write_at(start.size(), engine.subspan(start.size())));
  KILN_RETURN_IF_ERROR(file->commit());
  AtomicFile::remove_leftovers(*folder_);
  evict(*folder_, std::string(kEnding), max_bytes_, {name}, [&](const std::string& each) {
    const std::string other = each.substr(0, each.size() - kEnding.size());
    return is_key(other) && is_entry(*folder_, other);
  });
  return Status();
}

}  // namespace kiln
