// plan::Program -> an engine, through a backend.
#pragma once

#include "backends/backend.h"

namespace kiln::backend {

// The engine of a program that was planned by the backend's traits, with a program for each of the
// chosen variants. Kernels are generated in parallel and joined in the program's order, so that the
// bytes do not depend on the number of threads. CompileError or InternalError.
CompiledProgram compile_program(const Backend& backend, const plan::Program& program,
                                const BackendOptions& options);

}  // namespace kiln::backend
