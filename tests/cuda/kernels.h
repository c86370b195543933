// Kernels of the CUDA backend as text, compiled by NVRTC where it is there.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "backends/cuda/compile/generate.h"
#include "ir/graph.h"
#include "plan/form/program.h"

namespace kiln::test {

// A graph planned for the CUDA backend, for all generations or one; tf32: of CompileOptions.
plan::Program plan_for_cuda(ir::Graph graph, uint8_t tf32 = 0, const std::string& variant = "");

// The same as loop nests alone, which are plain C++.
plan::Program plan_nests(ir::Graph graph);

// The texts of the distinct kernels of a program, library calls left out.
std::vector<cuda::KernelText> kernel_texts(const plan::Program& program,
                                           const cuda::Target& target);

// "sm_90"
const cuda::Target& target_named(const std::string& name);

// What is wrong with a text when it is compiled for a target: an error, a warning, registers that
// spill to memory. Empty: nothing. Texts that were compiled before are not again, for this generation or an earlier one with the
// same registers.
std::string problem_of(const std::string& text, const cuda::Target& target);

}  // namespace kiln::test
