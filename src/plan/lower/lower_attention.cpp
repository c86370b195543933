// attention. Sizes or types that Attention kernels do not cover are two nests.
#include <limits>

#include "plan/lower/lowering.h"
#include "support/error.h"

namespace kiln::plan {
namespace {

using ir::Op;

// Positions in q, k and v in terms of batch loops over [B, key-value heads, heads per key-value
// head].
struct Heads {
  std::vector<Loop> batch;
  Index b, query_head, key_head;
};

Heads make_heads(const ir::Node& node) {
  const ir::Shape& q = node.input(0)->type.shape;
  const ir::Shape& k = node.input(1)->type.shape;
  const ir::Dim group = ir::floordiv(q[1], k[1]);
  LoopSpace space = make_loops({q[0], k[1], group}, "b");
  Heads heads;
  heads.batch = std::move(space.loops);
  heads.b = space.indices[0];
  heads.key_head = space.indices[1];
  heads.query_head = space.indices[1] * group + space.indices[2];
  return heads;
}

Expr mask_element(Lowering& lowering, const ir::Node& node, const Indices& at) {
  const ir::Shape& q = node.input(0)->type.shape;
  return lowering.load_broadcast(node.input(3), {q[0], q[1], q[2], node.input(1)->type.shape[2]},
                                 at);
}

void lower_as_kernel(Lowering& lowering, const ir::Node& node) {
  const ir::Type& type = node.output()->type;
  const ir::Shape& k = node.input(1)->type.shape;
  const Heads heads = make_heads(node);
  Attention attention;
  attention.batch = heads.batch;
  attention.i = make_loop("i", type.shape[2]);
  attention.j = make_loop("j", k[2]);
  attention.head_dim = k[3].constant();
  attention.value_dim = type.shape[3].constant();
  attention.scale = node.attr<double>("scale");
  attention.causal = node.attr<bool>("causal");
  attention.nan_rows = node.attr_or("nan_rows", false);
  const Loop d = make_loop("d", k[3]), e = make_loop("e", type.shape[3]);
  const Index i(attention.i.index), j(attention.j.index);
  const auto loops = [&](const Loop& row, const Loop& column) {
    return with_loops(heads.batch, {row, column});
  };
  attention.q = lowering.operand_view(node.input(0), {heads.b, heads.query_head, i, d.index},
                                      loops(attention.i, d));
  attention.k = lowering.operand_view(node.input(1), {heads.b, heads.key_head, j, d.index},
                                      loops(attention.j, d));
  attention.v = lowering.operand_view(node.input(2), {heads.b, heads.key_head, j, e.index},
                                      loops(attention.j, e));
  attention.out =
      lowering.dense_view(lowering.define(node.output()), type.shape,
                          {heads.b, heads.query_head, i, e.index}, loops(attention.i, e));
  attention.formats = lowering.formats(attention.q.buffer, attention.k.buffer);
  attention.formats.weight = attention.formats.right;  // k is packed in the run, constant or not
  if (node.input(3)) {
    Expr mask = mask_element(lowering, node, {heads.b, heads.query_head, i, j});
    if (mask->dtype == DType::Bool) {
      attention.keep = std::move(mask);
    } else {
      attention.bias = cast(std::move(mask), attention.formats.accumulator);
    }
  }
  lowering.emit(node, std::move(attention));
}

// The scores are a buffer; masked ones are -inf.
struct Scores {
  BufferId buffer = -1;
  ir::Shape shape;
};

Scores emit_scores(Lowering& lowering, const ir::Node& node, BufferId buffer) {
  const ir::Shape& q = node.input(0)->type.shape;
  const ir::Shape& k = node.input(1)->type.shape;
  const ir::Shape shape = {q[0], q[1], q[2], k[2]};
  const DType dtype = accumulator_dtype(node);
  const LoopSpace space = make_loops(shape);
  LoopSpace inner = make_loops({k[3]}, "d");
  const Indices& at = space.indices;
  const Index key_head = ir::floordiv(at[1], ir::floordiv(q[1], k[1]));
  const Expr a = cast(lowering.load(node.input(0), {at[0], at[1], at[2], inner.indices[0]}), dtype);
  const Expr b =
      cast(lowering.load(node.input(1), {at[0], key_head, at[3], inner.indices[0]}), dtype);
  NestBuilder builder(space.loops);
  Expr score = builder.reduce(ReduceOp::Sum, inner.loops, apply(Op::mul, {a, b}));
  score = apply(Op::mul, {score, constant(dtype, node.attr<double>("scale"))});
  Expr keep;
  if (node.attr<bool>("causal")) keep = apply(Op::le, {position(at[3]), position(at[2])});
  if (node.input(3)) {
    Expr mask = mask_element(lowering, node, at);
    if (mask->dtype == DType::Bool) {
      keep = logical_and(keep, mask);
    } else {
      score = apply(Op::add, {score, cast(mask, dtype)});
    }
  }
  const Expr nothing = constant(dtype, -std::numeric_limits<double>::infinity());
  if (keep) score = apply(Op::where, {keep, score, nothing});
  builder.store({buffer, {}, at, std::move(score), {}});
  lowering.emit(node, builder.finish());
  return {buffer, shape};
}

// For each output element: the weighted mean of the values. Rows that keep nothing give zeros, or
// NaN.
void emit_weighted_mean(Lowering& lowering, const ir::Node& node, const Scores& scores) {
  const ir::Type& type = node.output()->type;
  const DType dtype = accumulator_dtype(node);
  const LoopSpace space = make_loops(type.shape);
  const Indices& at = space.indices;
  const ir::Dim group = ir::floordiv(type.shape[1], node.input(1)->type.shape[1]);
  NestBuilder builder(space.loops);
  const auto inner = [&] { return make_loops({scores.shape[3]}, "j"); };
  const auto score = [&](const LoopSpace& j) {
    return load_at(scores.buffer, dtype, {at[0], at[1], at[2], j.indices[0]});
  };
  const Expr zero = constant(dtype, 0);
  LoopSpace j = inner();
  Expr max = builder.reduce(ReduceOp::Max, j.loops, score(j));
  max = apply(Op::where, {apply(Op::isinf, {max}), zero, max});
  const auto weight = [&](const LoopSpace& loop) {
    return apply(Op::exp, {apply(Op::sub, {score(loop), max})});
  };
  j = inner();
  const Expr sum = builder.reduce(ReduceOp::Sum, j.loops, weight(j));
  j = inner();
  const Indices value_at = {at[0], ir::floordiv(at[1], group), j.indices[0], at[3]};
  const Expr value = cast(lowering.load(node.input(2), value_at), dtype);
  const Expr total = builder.reduce(ReduceOp::Sum, j.loops, apply(Op::mul, {weight(j), value}));
  Expr result = apply(Op::div, {total, sum});
  if (!node.attr_or("nan_rows", false)) {
    result = apply(Op::where, {apply(Op::eq, {sum, zero}), zero, result});
  }
  builder.store({lowering.define(node.output()), {}, at, cast(result, type.dtype), {}});
  lowering.emit(node, builder.finish());
}

}  // namespace

void lower_attention(Lowering& lowering, const ir::Node& node) {
  const ir::Type& type = node.output()->type;
  const ir::Dim& head_dim = node.input(1)->type.shape[3];
  const bool fits = has_kernel(lowering.traits().attention, node);
  if (fits && head_dim.is_constant() && type.shape[3].is_constant()) {
    return lower_as_kernel(lowering, node);
  }
  const ir::Shape& q = node.input(0)->type.shape;
  const ir::Shape scores = {q[0], q[1], q[2], node.input(1)->type.shape[2]};
  const BufferId buffer =
      lowering.add_temporary(node.output()->name + "_scores", {accumulator_dtype(node), scores});
  emit_weighted_mean(lowering, node, emit_scores(lowering, node, buffer));
}

}  // namespace kiln::plan
