// Functions of the kernel's own module: for formulas that need loops, which straight-line code has
// no room for, or that are long.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "backends/cpu/compile/math/real.h"

namespace kiln::cpu {

// The value of `name` at `args`, which have one type: emitted once per type and kernel, by `body`,
// which may make blocks of its own.
Real call_function(const std::string& name, const std::vector<Real>& args,
                   const std::function<Real(const std::vector<Real>& args)>& body);

// Runs `body` while a lane of the condition is true, on values that it replaces. Only in
// call_function().
std::vector<Real> while_any(std::vector<Real> values,
                            const std::function<llvm::Value*(const std::vector<Real>&)>& condition,
                            const std::function<std::vector<Real>(const std::vector<Real>&)>& body);

}  // namespace kiln::cpu
