// Splitting the outer loops of a kernel into tasks.
#pragma once

#include <functional>
#include <vector>

#include "backends/cpu/compile/emit/emitter.h"

namespace kiln::cpu {

// Runs body() for each task in [task_begin, task_end): a point of `loops`, whose indices are bound.
// The indices are computed once and then counted up: no division per task. Sets interface().tasks.
void for_each_task(Emitter& emitter, const std::vector<plan::Loop>& loops,
                   const std::function<void()>& body);

}  // namespace kiln::cpu
