// Engines and profiles as JSON: for `kiln inspect` and people.
#pragma once

#include <string>

#include "runtime/engine.h"
#include "runtime/session.h"

namespace kiln::runtime {

// {"name", "producer", "target", "variant", "runs_here", "format_version", "content_hash",
//  "program_hash", "sizes", "inputs", "outputs", "symbols", "memory", "programs", "kernels",
//  "sections"}
// "sizes" is the size program (runtime/size_text.h) that the dimensions of inputs and outputs refer
// to.
// "target", "variant", "program_hash", "memory" and "kernels" are those of the program that runs, or
// else of the first of those asked for that could, or at least is known. A kernel that is launched has
// a "function" and an "entry", where the file that it is in begins in the program's code. Reads all programs; what is wrong with one, or
// stands against it here, is its "obstacle". Fails if the bytes were changed under the engine.
Result<std::string> describe(const Engine& engine);
// Steps of the last run with profiling, in order: [{"kernel", "kind", "sources", "tasks",
// "threads", "nanoseconds"}]
std::string describe_profile(const Session& session);

}  // namespace kiln::runtime
