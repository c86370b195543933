// Programs for several targets in one engine.
#pragma once

#include <vector>

#include "backends/backend.h"

namespace kiln::backend {

// The engine with the programs of all parts, in their order. The parts were compiled from plans of one
// graph, one or more; InternalError where callers would see something else of one than of another.
CompiledProgram join_programs(std::vector<CompiledProgram> parts);

}  // namespace kiln::backend
