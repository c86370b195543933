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

}  // namespace kiln::reference
