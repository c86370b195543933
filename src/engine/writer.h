// Serialises engines. The same spec gives the same bytes.
#pragma once

#include <cstddef>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "engine/spec.h"
#include "support/status.h"

namespace kiln::engine {

// By program and buffer: the bytes of programs[p].buffers[i] where that is a Constant. The writer
// assigns their offsets: equal contents are stored once, whichever programs they are of. Offsets,
// sizes and hashes in the spec are ignored on the way in.
using ProgramConstants = std::vector<std::span<const std::byte>>;
using Constants = std::span<const ProgramConstants>;

enum class Weights { Included, Stripped };

// A stripped engine has everything but the contents of the constants: it cannot run until a refit
// fills them in. One without constants has nothing to lose, and runs.
Result<std::vector<std::byte>> write(const Spec& spec, Constants constants,
                                     Weights weights = Weights::Included);
// Streams to a temporary file in the same folder, syncs, and renames it over `path`. On failure
// `path` is as it was and the temporary file is gone.
Status write_file(const Spec& spec, Constants constants, const std::string& path,
                  Weights weights = Weights::Included);

}  // namespace kiln::engine
