// New weights for an engine.
#pragma once

#include <span>
#include <vector>

#include "compiler/driver.h"

namespace kiln {

// The engine of `model` with the code of `engine`, which may be stripped of its weights: the bytes
// that compile() would give, without generating code. The model is planned with the ranges and
// passes that the engine was made with; of `options`, threads, strip_weights, verify_passes, dumps
// and progress count. A plan that differs from the engine's is a CompileError that says where;
// bytes that are not an engine are a StatusError.
std::vector<std::byte> refit(std::span<const std::byte> engine, const import::Model& model,
                             const CompileOptions& options);

}  // namespace kiln
