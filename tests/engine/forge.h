// A forger's tools: engines whose hashes are right and whose contents may be anything.
#pragma once

#include <cstddef>
#include <functional>
#include <optional>
#include <vector>

#include "engine/format.h"
#include "engine/sample_engine.h"
#include "engine/spec.h"

namespace kiln::testing {

using Bytes = std::vector<std::byte>;

engine::FileHeader header_of(const Bytes& bytes);
std::vector<engine::SectionEntry> sections_of(const Bytes& bytes);
// Puts header and table in place, with the hash of both.
void seal(Bytes& bytes, engine::FileHeader header,
          const std::vector<engine::SectionEntry>& sections);

// The contents of the sections of an engine.
struct Parts {
  Bytes interface;
  std::vector<Bytes> programs, code;
  std::optional<Bytes> weights;
};
Parts parts_of(const Bytes& bytes);
// A file of them, in the places and with the hashes that a writer would give them.
Bytes assemble(const Parts& parts);

// An engine as bytes with another spec, whatever it breaks.
Bytes forged(const SampleEngine& sample, const std::function<void(engine::Spec&)>& change);
// The sample engine with another table or another spec.
Bytes forged_table(const std::function<void(std::vector<engine::SectionEntry>&)>& change);
Bytes forged_spec(const std::function<void(engine::Spec&)>& change);

}  // namespace kiln::testing
