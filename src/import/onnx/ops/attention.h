// What the attention operators of ONNX and of com.microsoft share.
#pragma once

#include "import/onnx/ops/common.h"

namespace kiln::import::onnx {

// [batch, length, heads * size] as [batch, heads, length, size], and back.
Value* split_heads(NodeCall& call, Value* x, int64_t heads);
Value* merge_heads(NodeCall& call, Value* x);

struct AttentionOperands {
  Value *query, *key, *value;  // [batch, heads, length, size]; keys and values may have fewer heads
  Value* mask =
      nullptr;  // bool: kept; floating: added. Broadcasts to [batch, heads, queries, keys]
  Value* sink = nullptr;  // [heads]: a score beside those of the keys, whose value is 0
  Dim past = 0;           // positions before the first query
  double scale = 1, softcap = 0;
  bool causal = false;
};

// 1 / sqrt(the size of a head).
double default_scale(NodeCall& call, const Value* query);

// A mask of queries of a dtype (mask_for), as far as the keys go: what it lacks is not attended. Null stays null.
Value* fitted_mask(NodeCall& call, Value* mask, const Dim& keys, DType query);

// A mask, or none, that keeps nothing but what `kept` has, too.
Value* both(NodeCall& call, Value* mask, const Expr& kept);

// Step by step, where the scores are wanted or changed: they are taken as products, capped, masked or weights (0 to 3).
struct ComposedAttention {
  Value *result, *scores;
};
ComposedAttention compose_attention(NodeCall& call, const AttentionOperands& o, int64_t wanted);

// [batch, heads, queries, size of a value]
Value* attend(NodeCall& call, const AttentionOperands& o);

// x [batch, length, heads, size], of which pairs of the first elements are turned by angles [batch, length, pairs]:
// neighbours if interleaved, else the two halves.
Value* rotate_heads(NodeCall& call, Value* x, Value* cosine, Value* sine, bool interleaved);

}  // namespace kiln::import::onnx
