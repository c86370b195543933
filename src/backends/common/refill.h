// Constants of an engine again, of other weights.
#pragma once

#include "backends/backend.h"

namespace kiln::backend {

// The contents of the constants of those of an engine's programs that are the backend's, made of a program
// with their program hash: what compile_program would give, without generating code. The entries of
// other programs are empty. CompileError for a spec that does not go with the program.
EngineConstants refill_constants(const Backend& backend, const engine::Spec& spec,
                                 const plan::Program& program, int threads);

}  // namespace kiln::backend
