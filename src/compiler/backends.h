// The backends of the compiler, by target.
#pragma once

#include <string_view>

#include "backends/backend.h"

namespace kiln {

// CompileError that lists the targets there are.
const Backend& find_backend(std::string_view target);

// One more in this process, which outlives all use: for backends that are in no product. Not while
// something compiles.
void add_backend(const Backend& backend);

}  // namespace kiln
