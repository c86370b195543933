// Runs engines for the compiler, which has no runtime of its own: calibration, and how accurate an engine is.
// Not public.
#pragma once

#include "compiler/driver.h"

namespace kiln {

// For CompileOptions::run_engine: on CPUs, with that many threads (0: one per core).
RunEngine engine_runner(int threads);

}  // namespace kiln
