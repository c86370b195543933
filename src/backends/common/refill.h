// Constants of an engine again, of other weights.
#pragma once

#include "backends/backend.h"

namespace kiln::backend {

// The contents of an engine's constants, made of a program with the program hash of all its
// programs: what compile_program would give, without generating code. The engine's programs are the
// backend's. CompileError for a spec that does not go with the program.
EngineConstants refill_constants(const Backend& backend, const engine::Spec& spec,
                                 const plan::Program& program, int threads);

}  // namespace kiln::backend
