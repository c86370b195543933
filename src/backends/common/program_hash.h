// Knowing a program again: what a refit and the cache go by.
#pragma once

#include <string>
#include <vector>

#include "plan/form/program.h"

namespace kiln::backend {

// Identifies everything of a program that decides an engine but the contents of constants and the
// names of values: programs with equal hashes have equal code, and the same constants in the same
// places. It is the same in every process.
std::string program_hash(const plan::Program& program);
// The hash of what each kernel computes, as engine::KernelSpec has it.
std::vector<std::string> kernel_hashes(const plan::Program& program);

}  // namespace kiln::backend
