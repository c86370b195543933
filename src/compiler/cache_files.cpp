#include "compiler/cache_files.h"

#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <optional>
#include <tuple>
#include <utility>

#include "support/errno_status.h"

namespace kiln {

Status make_private_directory(const std::string& directory, const std::string& cache) {
  for (size_t end = directory.find('/', 1); end != std::string::npos;
       end = directory.find('/', end + 1))
    mkdir(directory.substr(0, end).c_str(), 0700);  // the last one says what is wrong
  if (mkdir(directory.c_str(), 0700) == 0 || errno == EEXIST) return Status();
  return errno_status("make the " + cache, directory, errno);
}

Result<Folder> open_private_folder(const std::string& directory, const std::string& cache) {
  std::string path = directory;
  while (path.size() > 1 && path.back() == '/') path.pop_back();
  KILN_RETURN_IF_ERROR(make_private_directory(path, cache));
  const auto unusable = [&](const std::string& why) {
    return Status(StatusCode::InvalidArgument,
                  "the " + cache + " " + path + " is not used: " + why +
                      "; it holds machine code, so give a folder that belongs to you alone");
  };
  auto folder = Folder::open(path, Folder::Links::Refuse);
  struct stat info;
  if (!folder && lstat(path.c_str(), &info) == 0 && S_ISLNK(info.st_mode))
    return unusable("it is a symbolic link");
  if (!folder || fstat(folder->get(), &info) != 0)
    return errno_status("use the " + cache, path, errno);
  if (info.st_uid != geteuid()) return unusable("it belongs to another user");
  if ((info.st_mode & (S_IWGRP | S_IWOTH)) != 0)
    return unusable("other users may write to it (chmod go-w it)");
  return std::move(*folder);
}

void evict(const Folder& folder, const std::string& ending, uint64_t max_bytes,
           const std::set<std::string>& kept,
           const std::function<bool(const std::string& name)>& is_entry) {
  struct Entry {
    timespec used{};
    std::string name;
    uint64_t size = 0;
  };
  std::vector<Entry> entries;
  uint64_t total = 0;
  for (const std::string& name : folder.names_with_prefix("")) {
    const auto info = name.ends_with(ending) ? folder.find(name) : std::nullopt;
    if (!info || !is_entry(name)) continue;
    entries.push_back({info->st_mtim, name, static_cast<uint64_t>(info->st_size)});
    total += entries.back().size;
  }
  // Oldest first; equal times by name, so that all processes agree.
  std::ranges::sort(entries, {}, [](const Entry& entry) {
    return std::tuple(entry.used.tv_sec, entry.used.tv_nsec, entry.name);
  });
  for (const Entry& entry : entries) {
    if (total <= max_bytes) return;
    if (kept.contains(entry.name)) continue;
    folder.remove(entry.name);  // somebody else may have been faster
    total -= entry.size;
  }
}

Result<std::vector<std::byte>> read_all(const FileDescriptor& file, const std::string& path) {
  struct stat info;
  if (fstat(file.get(), &info) != 0) return errno_status("read", path, errno);
  std::vector<std::byte> bytes(static_cast<size_t>(info.st_size));
  for (size_t done = 0; done < bytes.size();) {
    const ssize_t count =
        pread(file.get(), bytes.data() + done, bytes.size() - done, static_cast<off_t>(done));
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return errno_status("read", path, errno);
    if (count == 0) bytes.resize(done);  // somebody made it shorter
    done += static_cast<size_t>(count);
  }
  return bytes;
}

}  // namespace kiln
