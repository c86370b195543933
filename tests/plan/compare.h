// Runs a graph through the reference interpreter and through plans of it, and compares.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "ir/graph.h"
#include "plan/form/interpret.h"
#include "plan/form/text.h"
#include "plan/form/verify.h"
#include "plan/lower/lower.h"

namespace kiln::plan {

// What the tests plan for: all kernel forms in the floating types up to f32, and budgets that
// leave something fused and something not. The golden texts follow from these, not from what a
// backend says of itself.
const TargetTraits& test_traits();
// Machines that are nothing like it: loop nests alone and nothing fused; kernel forms for f32
// without fused epilogues; forms for all floating types, and everything fused that can be.
const std::vector<TargetTraits>& other_traits();

struct Case {
  // Values of size symbols; others take their opt.
  std::map<std::string, int64_t> sizes = {};
  // Integer inputs are random in [0, integer_limit).
  int64_t integer_limit = 3;
  double tolerance = 2e-5;
  TargetTraits traits = test_traits();
};

// Parses a graph; inputs whose name begins with "w" become random constants.
ir::Graph make_graph(const std::string& text, const Case& options = {});
// Random inputs.
std::vector<ir::Literal> make_inputs(const ir::Graph& graph, const Case& options = {});

// Expects that the lowered program and the fused one give what the reference gives; returns the
// fused program.
Program expect_same_as_reference(const std::string& text, const Case& options = {});
Program expect_same_as_reference(const ir::Graph& graph, const Case& options = {});

// Expects that a program gives what the reference gives for the graph.
void expect_same_as_reference(const Program& program, const ir::Graph& graph,
                              const Case& options = {});

// The program straight from lowering.
Program lowered(const std::string& text);
// The kernels of a program as text, without the buffers.
std::string kernels_text(const Program& program);

}  // namespace kiln::plan
