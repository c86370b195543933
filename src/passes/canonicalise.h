// The two halves of the pass `canonicalise`.
#pragma once

#include "passes/rewrite.h"

namespace kiln::passes {

// Pointwise ops; canonicalise_pointwise.cpp.
ir::Value* canonicalise_pointwise(Rewriter& rewriter, ir::Node& node);
// Everything else; canonicalise.cpp.
ir::Value* canonicalise_other(Rewriter& rewriter, ir::Node& node);

}  // namespace kiln::passes
