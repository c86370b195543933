#include "support/folder.h"

#include <dirent.h>
#include <fcntl.h>
#include <unistd.h>

#include <array>
#include <memory>

namespace kiln {

std::optional<Folder> Folder::open(const std::string& path, Links links, const Folder* from) {
  const int base = from == nullptr ? AT_FDCWD : from->get();
  // O_PATH: a folder that may be written to need not be readable.
  const int flags = O_PATH | O_DIRECTORY | O_CLOEXEC | (links == Links::Refuse ? O_NOFOLLOW : 0);
  FileDescriptor descriptor(openat(base, path.empty() ? "." : path.c_str(), flags));
  if (!descriptor.is_open()) return std::nullopt;
  return Folder(std::move(descriptor), path);
}

std::string Folder::path_of(const std::string& name) const {
  if (path_.empty()) return name;
  return path_.back() == '/' ? path_ + name : path_ + "/" + name;
}

std::optional<struct stat> Folder::find(const std::string& name) const {
  struct stat info;
  if (fstatat(get(), name.c_str(), &info, AT_SYMLINK_NOFOLLOW) != 0) return std::nullopt;
  return info;
}

std::optional<std::string> Folder::link_target(const std::string& name) const {
  std::array<char, 4096> target;
  const ssize_t size = readlinkat(get(), name.c_str(), target.data(), target.size());
  if (size < 0 || size == static_cast<ssize_t>(target.size())) return std::nullopt;
  return std::string(target.data(), static_cast<size_t>(size));
}

FileDescriptor Folder::open_file(const std::string& name, int flags, mode_t mode) const {
  return FileDescriptor(
      openat(get(), name.c_str(), flags | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, mode));
}

bool Folder::remove(const std::string& name) const { return unlinkat(get(), name.c_str(), 0) == 0; }

std::vector<std::string> Folder::names_with_prefix(const std::string& prefix) const {
  std::vector<std::string> names;
  FileDescriptor readable(openat(get(), ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!readable.is_open()) return names;
  const std::unique_ptr<DIR, int (*)(DIR*)> listing(fdopendir(readable.get()), closedir);
  if (listing == nullptr) return names;
  readable.release();  // the listing closes it
  while (const dirent* entry = readdir(listing.get())) {
    const std::string name = entry->d_name;
    if (name.starts_with(prefix)) names.push_back(name);
  }
  return names;
}

void Folder::sync() const {
  const FileDescriptor readable(openat(get(), ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (readable.is_open()) fsync(readable.get());
}

}  // namespace kiln
