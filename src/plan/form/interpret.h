// Running a program without a backend: the oracle for fusion and for backends.
#pragma once

#include <span>
#include <vector>

#include "ir/graph.h"
#include "plan/form/program.h"

namespace kiln::plan {

// The outputs, kernel by kernel on concrete inputs. InternalError for an access outside of a buffer
// and for inputs that do not fit; CompileError for a Check that fails, as a run has it.
std::vector<ir::Literal> interpret(const Program& program, std::span<const ir::Literal> inputs);

}  // namespace kiln::plan
