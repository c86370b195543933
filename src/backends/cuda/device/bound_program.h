#pragma once

#include <memory>

#include "backends/cuda/device/loaded_program.h"
#include "backends/executable.h"

namespace kiln::cuda {

// A loaded program for one set of sizes. Its runs are asynchronous: they are on the stream when run()
// comes back.
Result<std::unique_ptr<BoundProgram>> bind_program(std::shared_ptr<const LoadedProgram> program,
                                                   const BindRequest& request);

}  // namespace kiln::cuda
