// Modes that the calls of an engine may be in: memory of results allocated by the call before,
// kernels timed, and a GPU's memory for weights limited. They belong to the address of the engine's bytes, are switched from Python,
// and cost one atomic load where no engine has any.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>

#include "torch/engine_runner.h"

namespace kiln::torch_op {

inline constexpr uint32_t kPreAllocate = 1;
inline constexpr uint32_t kProfile = 2;

// What a call of the engine at this address has to do besides running; null if it has no modes.
std::unique_ptr<RunHooks> modal_run(const void* data);

// A sum of the modes above. What modes had kept is dropped when they change; calls under way finish
// with what they began with.
void set_modes(const void* data, uint32_t flags);

// Bytes of a GPU's memory for weights that can be streamed; none: no limit. Sessions of another budget,
// and their weights, go before the next call of the engine makes its own.
void set_weight_budget(const void* data, std::optional<uint64_t> bytes);

}  // namespace kiln::torch_op
