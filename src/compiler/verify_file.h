// Checks whole files: engines, and saved models with engines in them.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "engine/verify.h"

namespace kiln {

struct FoundEngine {
  std::string name;  // of the entry in a saved model; empty for a bare engine
  uint64_t offset = 0, size = 0;
};

struct FileReport {
  std::vector<FoundEngine> engines;
  std::vector<engine::Damage> damages;  // with offsets into the file
  std::vector<std::string> unchecked;   // compressed entries: TorchScript's code
};

// A file is an engine, or a zip archive, which all containers of saved models are. The contents of
// every stored entry are checked by its checksum, and those that begin like an engine as one.
// Throws StatusError for a file that cannot be read, and CompileError for one that is neither.
FileReport verify_file(const std::string& path);

}  // namespace kiln
