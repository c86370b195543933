#include "passes/pass.h"

namespace kiln::passes {

// Removes nodes that no graph output depends on. No op has side effects, so nothing else keeps a
// node.
bool eliminate_dead_code(ir::Graph& graph, PassContext&) { return graph.erase_dead() > 0; }

}  // namespace kiln::passes
