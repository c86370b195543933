// What the runtime relies on and does not check again.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "engine/spec.h"
#include "support/status.h"

namespace kiln::engine {

// InvalidEngine names the first rule that is broken, and where. The rules are those of
// docs/engine_format.md, in order.
Status validate_interface(const Spec& spec);
// A program that belongs to a valid interface and has nothing unknown. No weights_size: a stripped
// engine.
Status validate_program(const Spec& spec, const ProgramSpec& program,
                        std::optional<uint64_t> weights_size);

// What this version of Kiln does not know of a program: its target or version, which its head says,
// or the kind of one of its steps. Empty: its rules are known.
std::string unknown_of_head(const ProgramSpec& program);
std::string unknown_of(const ProgramSpec& program);

}  // namespace kiln::engine
