// The rules of docs/plan.md.
#pragma once

#include "plan/form/program.h"

namespace kiln::plan {

// InternalError that names the rule and the kernel.
void verify(const Program& program);

}  // namespace kiln::plan
