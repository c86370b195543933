// Spec <-> the FlatBuffers plan section. Neither direction looks at what the numbers mean: see
// engine/validate.h.
#pragma once

#include <cstddef>
#include <span>
#include <vector>

#include "engine/spec.h"
#include "support/status.h"

namespace kiln::engine {

std::vector<std::byte> encode_plan(const Spec& spec);
// `bytes` are aligned to kPlanAlignment and may hold anything. The variants come back without code.
Result<Spec> decode_plan(std::span<const std::byte> bytes);

}  // namespace kiln::engine
