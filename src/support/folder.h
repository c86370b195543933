// An open folder: files are opened, replaced and removed relative to it, whatever its path has come
// to mean since.
#pragma once

#include <sys/stat.h>

#include <optional>
#include <string>
#include <vector>

#include "support/file_descriptor.h"

namespace kiln {

class Folder {
 public:
  enum class Links { Follow, Refuse };  // where the last part of the path is a symbolic link

  // An empty path is the current folder. `from` is where relative paths begin; null: the current
  // folder. Nothing where that fails: errno says why.
  static std::optional<Folder> open(const std::string& path, Links links = Links::Follow,
                                    const Folder* from = nullptr);

  int get() const { return descriptor_.get(); }
  const std::string& path() const { return path_; }  // as it was given: for messages
  std::string path_of(const std::string& name) const;

  // Nothing where there is no such file. Links are not followed.
  std::optional<struct stat> find(const std::string& name) const;
  // What a symbolic link says; nothing for anything else.
  std::optional<std::string> link_target(const std::string& name) const;
  // Never follows links, never waits. Not open where that fails: errno says why.
  FileDescriptor open_file(const std::string& name, int flags, mode_t mode = 0) const;
  bool remove(const std::string& name) const;
  // Of all files whose names start so, in no order; empty if the folder may not be read.
  std::vector<std::string> names_with_prefix(const std::string& prefix) const;
  // Puts what happened in the folder on the disk, where the file system can do that.
  void sync() const;

 private:
  Folder(FileDescriptor descriptor, std::string path)
      : descriptor_(std::move(descriptor)), path_(std::move(path)) {}

  FileDescriptor descriptor_;
  std::string path_;
};

}  // namespace kiln
