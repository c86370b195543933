// Spec <-> the FlatBuffers sections of interface and programs. Neither direction looks at what the
// numbers mean: see engine/validate.h.
#pragma once

#include <cstddef>
#include <span>
#include <vector>

#include "engine/spec.h"
#include "support/status.h"

namespace kiln::engine {

inline constexpr const char* kInterfaceIdentifier = "KINT";
inline constexpr const char* kProgramIdentifier = "KPRG";

// With the heads of the programs: what they are for.
std::vector<std::byte> encode_interface(const Spec& spec);
std::vector<std::byte> encode_program(const ProgramSpec& program);

// `bytes` are aligned to kTableAlignment and may hold anything. Programs come back with their heads
// alone; decode_program fills in the rest, but for the code.
Result<Spec> decode_interface(std::span<const std::byte> bytes);
Status decode_program(std::span<const std::byte> bytes, ProgramSpec& program);

}  // namespace kiln::engine
