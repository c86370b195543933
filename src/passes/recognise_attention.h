// Attention that models write out, as one op.
#pragma once

#include "passes/rewrite.h"

namespace kiln::passes {

// softmax(scale * q k^T + mask) v -> attention(q, k, v, mask), or null.
ir::Value* composed_attention(Rewriter& rewriter, ir::Node& node);

// attention(q, repeat(k), repeat(v)) -> attention(q, k, v), which shares key-value heads by itself, or null.
ir::Value* repeated_heads(Rewriter& rewriter, ir::Node& node);

}  // namespace kiln::passes
