// What an engine requires of sizes besides the shapes of its inputs.
#pragma once

#include <cstdint>
#include <span>

#include "engine/spec.h"
#include "support/status.h"

namespace kiln::runtime {

// The first requirement that does not hold as an error that names the sizes; `symbols` are within
// their ranges.
// `symbols` are those of the inputs and, behind them, the data sizes that are known. Of requirements that
// need data sizes only those are checked that need one past the first `before`.
Status check_requirements(const engine::Spec& spec, std::span<const int64_t> symbols,
                          size_t before = 0);

}  // namespace kiln::runtime
