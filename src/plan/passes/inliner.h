// Pointwise producers are computed where they are used instead of stored and loaded. A producer is
// inlined where that is free, or where everything that reads it can take it and the work that is
// repeated costs less than the memory traffic that is saved.
#pragma once

#include "plan/form/program.h"

namespace kiln::plan {

// Which kernels take producers into their expressions.
enum class Consumers {
  Pointwise,  // pointwise kernels, concatenations, epilogues and masks
  All,        // multi-stage nests too
};

// Returns whether anything was inlined.
bool inline_producers(Program& program, Consumers consumers);

}  // namespace kiln::plan
