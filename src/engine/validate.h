// What the runtime relies on and does not check again.
#pragma once

#include <cstdint>
#include <optional>

#include "engine/spec.h"
#include "support/status.h"

namespace kiln::engine {

// InvalidEngine names the first rule that is broken, and where. The rules are those of
// docs/engine_format.md, in order. No weights_size: a stripped engine.
Status validate(const Spec& spec, std::optional<uint64_t> weights_size);

}  // namespace kiln::engine
