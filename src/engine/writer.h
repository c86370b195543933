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

// `constants[i]` are the bytes of buffers[i] where that is a Constant. The writer assigns their
// offsets (equal contents are stored once); spec.buffers[i].offset is ignored on the way in.
using Constants = std::span<const std::span<const std::byte>>;

Result<std::vector<std::byte>> write(const Spec& spec, Constants constants);
// Streams to a temporary file in the same folder, syncs, and renames it over `path`. On failure
// `path` is as it was and the temporary file is gone.
Status write_file(const Spec& spec, Constants constants, const std::string& path);

}  // namespace kiln::engine
