// What may be written over what is read.
#pragma once

#include "plan/form/program.h"

namespace kiln::plan {

// Whether a kernel gives the same if `to`, which it writes, lies in the memory of `from`, which it
// reads: what it reads of it at one point of its loops it overwrites at that point, later or in the
// same step. Both have the same number of elements of the same size.
bool works_in_place(const Program& program, const Kernel& kernel, BufferId from, BufferId to);

}  // namespace kiln::plan
