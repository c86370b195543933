#include "passes/pass.h"

namespace kiln::passes {

// Removes nodes that no graph output depends on, and no check: a check stays, whoever reads what it
// checked.
bool eliminate_dead_code(ir::Graph& graph, PassContext&) { return graph.erase_dead() > 0; }

}  // namespace kiln::passes
