// The reference interpreter: obvious code, the oracle of every test, and what folds constants.
#pragma once

#include <functional>
#include <span>
#include <vector>

#include "ir/graph.h"

namespace kiln::reference {

using SizeOf = std::function<int64_t(const ir::SymbolPtr&)>;

// Evaluates one node on concrete operands. Absent optional operands are nullptr.
std::vector<ir::Literal> evaluate(const ir::Node& node, std::span<const ir::Literal* const> inputs,
                                  const SizeOf& size_of);

// Runs a graph; size symbols are bound from the inputs' shapes. CompileError if the inputs do not
// fit.
std::vector<ir::Literal> run(const ir::Graph& graph, std::span<const ir::Literal> inputs);
// Runs a graph that a node has: sizes are those around it.
std::vector<ir::Literal> run_body(const ir::Graph& body, std::span<const ir::Literal> inputs,
                                  const SizeOf& size_of);

}  // namespace kiln::reference
