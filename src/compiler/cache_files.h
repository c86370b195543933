// What caches do with files.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <set>
#include <string>
#include <vector>

#include "support/file_descriptor.h"
#include "support/folder.h"
#include "support/status.h"

namespace kiln {

// Makes all folders of a path that are missing, each for the user alone. `cache` is what they are for,
// in errors: "engine cache".
Status make_private_directory(const std::string& directory, const std::string& cache);

// A folder of machine code, made if it is not there. One that somebody else owns or may write to is
// refused, and so is a symbolic link. It is opened once: what the path means later does not matter.
Result<Folder> open_private_folder(const std::string& directory, const std::string& cache);

// Removes least recently used files with that ending until the rest has at most `max_bytes`; `kept` stays.
// `is_entry` tells the cache's own files from others, which are left as they are.
void evict(const Folder& folder, const std::string& ending, uint64_t max_bytes,
           const std::set<std::string>& kept,
           const std::function<bool(const std::string& name)>& is_entry);

// A whole file, `path` for errors. One that becomes shorter meanwhile is read as far as it goes.
Result<std::vector<std::byte>> read_all(const FileDescriptor& file, const std::string& path);

}  // namespace kiln
