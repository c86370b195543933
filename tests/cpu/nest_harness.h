// Graphs in text form, lowered, fused, compiled for every CPU level and compared with
// plan::interpret.
#pragma once

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "backends/common/compile_program.h"
#include "backends/cpu/compile/cpu_backend.h"
#include "cpu/contraction_harness.h"
#include "plan/compare.h"

namespace kiln::test {

// "graph main(<inputs>) symbols s0 in [1, 70] opt 37, s1 in [1, 2000] opt 100 { body return %y }"
std::string graph_text(const std::string& inputs, const std::string& body,
                       const std::string& result = "%y");

// Compares the outputs of all runnable variants with the interpreter's: equal where they are not
// floating, otherwise within options.tolerance of max(1, |expected|).
void expect_compiled(const std::string& text, const plan::Case& options = {});
void expect_compiled(const plan::Program& program, const std::vector<ir::Literal>& inputs,
                     double tolerance);

}  // namespace kiln::test
