// What the runtime relies on and does not check again.
#pragma once

#include <cstdint>

#include "engine/spec.h"
#include "support/status.h"

namespace kiln::engine {

// InvalidEngine names the first rule that is broken, and where. The rules are those of
// docs/engine_format.md, in order.
Status validate(const Spec& spec, uint64_t weights_size);

}  // namespace kiln::engine
