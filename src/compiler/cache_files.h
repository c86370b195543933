// What caches do with files.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include "support/file_descriptor.h"
#include "support/status.h"

namespace kiln {

// Makes all folders of a path that are missing, each for the user alone. `cache` is what they are for,
// in errors: "engine cache".
Status make_private_directory(const std::string& directory, const std::string& cache);

// A whole file, `path` for errors. One that becomes shorter meanwhile is read as far as it goes.
Result<std::vector<std::byte>> read_all(const FileDescriptor& file, const std::string& path);

}  // namespace kiln
