// The verifier: checks the numbered rules of docs/ir.md, in their order.
#pragma once

#include "ir/graph.h"

namespace kiln::ir {

// InternalError that names the rule and the node.
void verify(const Graph& graph);

}  // namespace kiln::ir
