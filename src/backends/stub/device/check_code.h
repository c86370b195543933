// Code of the stub machine that came from a file.
#pragma once

#include <span>
#include <vector>

#include "backends/stub/code.h"
#include "engine/spec.h"
#include "support/status.h"

namespace kiln::stub {

// The code of a program as instructions. InvalidEngine unless each step's kernel can be run by
// run_task: registers, jumps, buffers, parameters and checks exist, and loops nest. What it reads
// and writes of buffers is checked when it runs.
Result<std::vector<Instruction>> read_code(const engine::ProgramSpec& program);

}  // namespace kiln::stub
