#include "compiler/kernel_cache.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cstring>
#include <utility>

#include "compiler/build_hash.h"
#include "compiler/cache_files.h"
#include "support/atomic_file.h"

namespace kiln {
namespace {

using Bytes = std::vector<std::byte>;

constexpr std::string_view kEnding = ".code";
constexpr std::array<char, 8> kMagic = {'K', 'I', 'L', 'N', 'C', 'O', 'D', 'E'};

// In front of the code. `name` is a hash of the entry's name, `contents` one of the code.
struct Header {
  std::array<char, 8> magic;
  Hash128 name, contents;

  bool operator==(const Header&) const = default;
};
static_assert(sizeof(Header) == 40);

Hash128 hash_of(std::string_view text) { return hash128(std::as_bytes(std::span(text))); }

std::string name_of(const Hash128& key) {
  return hash_str(hash_of(build_hash() + hash_str(key))) + std::string(kEnding);
}

bool is_entry(const Folder& folder, const std::string& name) {
  const FileDescriptor file = folder.open_file(name, O_RDONLY);
  struct stat info;
  Header header;
  return file.is_open() && fstat(file.get(), &info) == 0 && S_ISREG(info.st_mode) &&
         pread(file.get(), &header, sizeof(header), 0) == static_cast<ssize_t>(sizeof(header)) &&
         header.magic == kMagic && header.name == hash_of(name);
}

}  // namespace

Result<std::unique_ptr<KernelCache>> KernelCache::open(const std::string& directory,
                                                       const Options& options) {
  Result<Folder> folder = open_private_folder(directory, "kernel cache");
  if (!folder.ok()) return folder.status();
  return std::unique_ptr<KernelCache>(new KernelCache(std::move(*folder), options));
}

std::optional<Bytes> KernelCache::find(const Hash128& key) {
  if (!options_.read) return std::nullopt;
  const std::string name = name_of(key);
  const FileDescriptor file = folder_->open_file(name, O_RDONLY);
  struct stat info;
  if (!file.is_open() || fstat(file.get(), &info) != 0 || !S_ISREG(info.st_mode))
    return std::nullopt;
  Result<Bytes> bytes = read_all(file, folder_->path_of(name));
  if (!bytes.ok() || bytes->size() < sizeof(Header)) return std::nullopt;
  Header header;
  std::memcpy(&header, bytes->data(), sizeof(header));
  const auto code = std::span(*bytes).subspan(sizeof(header));
  if (header != Header{kMagic, hash_of(name), hash128(code)}) return std::nullopt;
  futimens(file.get(), nullptr);  // a failure only makes the entry look older
  return Bytes(code.begin(), code.end());
}

void KernelCache::add(const Hash128& key, std::span<const std::byte> code) {
  if (!options_.write) return;
  const std::lock_guard lock(mutex_);
  added_.try_emplace(name_of(key), code.begin(), code.end());
}

Status KernelCache::finish() {
  const std::lock_guard lock(mutex_);
  if (added_.empty()) return Status();
  Status first;
  for (const auto& [name, code] : added_) {
    Status status = write(name, code);
    if (first.ok()) first = std::move(status);
  }
  added_.clear();
  AtomicFile::remove_leftovers(*folder_);
  evict(*folder_, std::string(kEnding), options_.max_bytes, {},
        [&](const std::string& name) { return is_entry(*folder_, name); });
  return first;
}

// A file of that name that is no entry is somebody else's, unless it is a damaged one: then it is replaced.
Status KernelCache::write(const std::string& name, std::span<const std::byte> code) const {
  const Header header = {kMagic, hash_of(name), hash128(code)};
  Result<AtomicFile> file = AtomicFile::create_in(folder_, name);
  if (!file.ok()) return file.status();
  KILN_RETURN_IF_ERROR(file->write_at(0, std::as_bytes(std::span(&header, 1))));
  KILN_RETURN_IF_ERROR(file->write_at(sizeof(header), code));
  return file->commit(AtomicFile::Sync::No);
}

}  // namespace kiln
