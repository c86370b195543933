// Reads and validates engines; treats the bytes as hostile.
#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <vector>

#include "engine/spec.h"
#include "support/status.h"

namespace kiln::engine {

struct SectionInfo {
  std::string name;  // "plan", "code:x86-64-v4", "weights"
  uint64_t offset = 0, size = 0;
  std::string hash;  // XXH3-128, hexadecimal, as stored
};

// A validated engine over borrowed bytes: spec.variants[i].code and weights point into them.
struct View {
  Spec spec;
  std::span<const std::byte> weights;
  std::vector<SectionInfo> sections;
  std::string
      content_hash;  // of the header, which has the hashes of all sections: identifies the engine
  uint32_t format_version = 0;
  bool stripped = false;  // no weights: only a refit can use it
};

struct ReadOptions {
  bool verify_weights = false;  // hash the weights as well
};

// Everything that the runtime relies on is checked here: bounds, alignment, hashes of plan and
// code, slots in order, kernel and buffer numbers, entry points inside the code. InvalidEngine says
// what is wrong and where.
Result<View> read(std::span<const std::byte> bytes, const ReadOptions& options = {});

}  // namespace kiln::engine
