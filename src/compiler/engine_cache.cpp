#include "compiler/engine_cache.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <ctime>
#include <filesystem>

#include "engine/reader.h"
#include "support/atomic_file.h"
#include "support/errno_status.h"
#include "support/file_map.h"

namespace kiln {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kEnding = ".kiln";
// A process that was killed while it wrote leaves its temporary file behind.
constexpr int64_t kStaleSeconds = 24 * 3600;

Status unusable(const std::string& directory, const std::string& why) {
  return Status(StatusCode::InvalidArgument, "the engine cache " + directory +
                                                 " is not used: " + why +
                                                 "; engines are machine code, so give a folder "
                                                 "that belongs to you alone");
}

Status make_directory(const std::string& directory) {
  std::error_code ignored;  // mkdir says what is wrong
  fs::create_directories(fs::path(directory).parent_path(), ignored);
  if (mkdir(directory.c_str(), 0700) == 0 || errno == EEXIST) return Status();
  return errno_status("make the engine cache", directory, errno);
}

Status check_owner(const std::string& directory) {
  struct stat info;
  if (stat(directory.c_str(), &info) != 0)
    return errno_status("use the engine cache", directory, errno);
  if (!S_ISDIR(info.st_mode)) return unusable(directory, "it is not a folder");
  if (info.st_uid != geteuid()) return unusable(directory, "it belongs to another user");
  if ((info.st_mode & (S_IWGRP | S_IWOTH)) != 0)
    return unusable(directory, "other users may write to it (chmod go-w it)");
  return Status();
}

// Keys come from users' code too: nothing that could lead out of the folder.
Status check_key(const std::string& key) {
  const bool plain = !key.empty() && key.size() <= 128 && std::ranges::all_of(key, [](char c) {
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' ||
           c == '-';
  });
  if (plain) return Status();
  return Status(StatusCode::InvalidArgument, "[engine cache] got the key \"" + key +
                                                 "\", expected 1 to 128 letters, digits, - or _");
}

struct Entry {
  std::string path;
  uint64_t size = 0;
  timespec used{};
};

// Oldest first; equal times by name, so that all processes agree.
bool is_older(const Entry& a, const Entry& b) {
  if (a.used.tv_sec != b.used.tv_sec) return a.used.tv_sec < b.used.tv_sec;
  if (a.used.tv_nsec != b.used.tv_nsec) return a.used.tv_nsec < b.used.tv_nsec;
  return a.path < b.path;
}

// The entries of a folder. Abandoned temporary files are removed on the way.
std::vector<Entry> entries_of(const std::string& directory) {
  std::vector<Entry> entries;
  std::error_code error;
  for (fs::directory_iterator file(directory, error), end; !error && file != end;
       file.increment(error)) {
    const std::string path = file->path().string();
    struct stat info;
    if (lstat(path.c_str(), &info) != 0 || !S_ISREG(info.st_mode)) continue;
    if (path.ends_with(kEnding))
      entries.push_back({path, static_cast<uint64_t>(info.st_size), info.st_mtim});
    else if (path.find(std::string(kEnding) + ".tmp-") != std::string::npos &&
             info.st_mtim.tv_sec + kStaleSeconds < std::time(nullptr))
      unlink(path.c_str());
  }
  return entries;
}

}  // namespace

Result<EngineCache> EngineCache::open(const std::string& directory, uint64_t max_bytes) {
  std::string path = directory;
  while (path.size() > 1 && path.back() == '/') path.pop_back();
  KILN_RETURN_IF_ERROR(make_directory(path));
  KILN_RETURN_IF_ERROR(check_owner(path));
  return EngineCache(std::move(path), max_bytes == 0 ? kDefaultCacheBytes : max_bytes);
}

std::string EngineCache::path_of(const std::string& key) const {
  return directory_ + "/" + key + std::string(kEnding);
}

Result<std::vector<std::byte>> EngineCache::find(const std::string& key) const {
  KILN_RETURN_IF_ERROR(check_key(key));
  const std::string path = path_of(key);
  const Result<FileMap> file = FileMap::open(path);
  if (!file.ok()) return file.status();
  const std::span<const std::byte> bytes = file->bytes();
  if (const Result<engine::View> view = engine::read(bytes, {.verify_weights = true}); !view.ok()) {
    unlink(path.c_str());
    return Status(view.status().code(),
                  "removed the damaged entry " + path + ": " + view.status().message());
  }
  utimensat(AT_FDCWD, path.c_str(), nullptr, 0);  // a failure only makes the entry look older
  return std::vector<std::byte>(bytes.begin(), bytes.end());
}

Status EngineCache::store(const std::string& key, std::span<const std::byte> engine) const {
  KILN_RETURN_IF_ERROR(check_key(key));
  if (engine.size() > max_bytes_)
    return Status(StatusCode::OutOfRange, "[engine cache] got an engine of " +
                                              std::to_string(engine.size()) +
                                              " bytes, expected at most " +
                                              std::to_string(max_bytes_) + ", the cache's size");
  const std::string path = path_of(key);
  Result<AtomicFile> file = AtomicFile::create(path);
  if (!file.ok()) return file.status();
  KILN_RETURN_IF_ERROR(file->write_at(0, engine));
  KILN_RETURN_IF_ERROR(file->commit());
  evict(path);
  return Status();
}

void EngineCache::evict(const std::string& kept) const {
  std::vector<Entry> entries = entries_of(directory_);
  uint64_t total = 0;
  for (const Entry& entry : entries) total += entry.size;
  std::ranges::sort(entries, is_older);
  for (const Entry& entry : entries) {
    if (total <= max_bytes_) return;
    if (entry.path == kept) continue;
    unlink(entry.path.c_str());  // somebody else may have been faster
    total -= entry.size;
  }
}

}  // namespace kiln
