// Engines and profiles as JSON: for `kiln inspect` and people.
#pragma once

#include <string>

#include "runtime/engine.h"
#include "runtime/session.h"

namespace kiln::runtime {

// {"name", "producer", "target", "format_version", "content_hash", "cpu_variant", "inputs",
// "outputs", "symbols",
//  "memory", "variants", "kernels", "sections"}
std::string describe(const Engine& engine);
// Steps of the last run with profiling, in order: [{"kernel", "kind", "sources", "tasks",
// "threads", "nanoseconds"}]
std::string describe_profile(const Session& session);

}  // namespace kiln::runtime
