// Files that appear whole or not at all.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "support/file_descriptor.h"
#include "support/folder.h"
#include "support/status.h"

namespace kiln {

// Writes to a temporary file in the folder of `path`; commit() syncs it to the disk and renames it
// over `path`. Without a successful commit `path` is as it was, and the temporary file is removed
// on destruction.
//
// A file that is replaced keeps its permissions and, where the system allows it, its owner; a
// symbolic link stays and the file that it leads to is replaced. A temporary file is locked while
// it is in use: what a killed process left is known by that, and removed by the next one that
// writes the same path.
class AtomicFile {
 public:
  // What is there must be a regular file, or a link to one: a device, a pipe or a folder is never
  // replaced.
  static Result<AtomicFile> create(const std::string& path);
  // The file of that name in an open folder; links are not followed.
  static Result<AtomicFile> create_in(std::shared_ptr<const Folder> folder,
                                      const std::string& name);
  // Removes what killed processes left in a folder, of whatever file.
  static void remove_leftovers(const Folder& folder);

  AtomicFile(AtomicFile&& other) noexcept = default;
  AtomicFile& operator=(AtomicFile&&) = delete;
  ~AtomicFile();

  // Gaps between writes read as zeros.
  Status write_at(uint64_t offset, std::span<const std::byte> bytes);
  Status resize(uint64_t size);
  // Without a sync the file may be empty or lacking parts after a power cut: for contents that say whether
  // they are whole.
  enum class Sync { Yes, No };
  Status commit(Sync sync = Sync::Yes);

 private:
  AtomicFile(std::shared_ptr<const Folder> folder, std::string name);

  Status open_temporary();
  Status keep_attributes() const;
  Status failure(int error_number) const;

  std::shared_ptr<const Folder> folder_;
  std::string name_, temporary_;
  FileDescriptor file_;
};

}  // namespace kiln
