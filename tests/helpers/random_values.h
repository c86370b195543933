// Graphs and inputs with random values: the same in each run.
#pragma once

#include <functional>
#include <random>
#include <string>
#include <vector>

#include "ir/graph.h"

namespace kiln::test {

// Floating values in [low, high), integers in [0, integers), any bool.
struct Values {
  double low = -1, high = 1;
  int64_t integers = 3;
};
using SizeOf = std::function<int64_t(const ir::SymbolPtr&)>;

ir::Literal random_literal(const ir::Type& type, const Values& values, const SizeOf& size_of,
                           std::mt19937& random);
// Parses a graph; inputs whose name begins with "w" become random constants.
ir::Graph graph_with_constants(const std::string& text, const Values& values,
                               const SizeOf& size_of);
std::vector<ir::Literal> random_inputs(const ir::Graph& graph, const Values& values,
                                       const SizeOf& size_of);

}  // namespace kiln::test
