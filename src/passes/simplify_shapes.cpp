#include <algorithm>

#include "ir/op_table.h"
#include "passes/pass.h"
#include "passes/rewrite.h"

namespace kiln::passes {
namespace {

using ir::Dim;
using ir::Node;
using ir::Op;
using ir::Shape;
using ir::Value;
using Axes = std::vector<int64_t>;

// reshape(reshape(x, a), b) -> reshape(x, b)
Value* reshape_of_reshape(Rewriter& rewriter, Node& node) {
  const Node* inner = producer(node.input(0), Op::reshape);
  if (node.op != Op::reshape || inner == nullptr) return nullptr;
  return rewriter.before(node).reshape(inner->input(0), node.output()->type.shape);
}

// permute(permute(x, a), b) -> permute(x, a[b])
Value* permute_of_permute(Rewriter& rewriter, Node& node) {
  const Node* inner = producer(node.input(0), Op::permute);
  if (node.op != Op::permute || inner == nullptr) return nullptr;
  Axes axes = compose(inner->attr<Axes>("axes"), node.attr<Axes>("axes"));
  if (is_identity(axes)) return inner->input(0);
  return rewriter.before(node).permute(inner->input(0), std::move(axes));
}

// A permute that keeps the order of the axes longer than 1 -> reshape
Value* permute_of_ones(Rewriter& rewriter, Node& node) {
  if (node.op != Op::permute) return nullptr;
  int64_t last = -1;
  for (int64_t axis : node.attr<Axes>("axes")) {
    if (node.input(0)->type.shape[axis].is_constant(1)) continue;
    if (axis < last) return nullptr;
    last = axis;
  }
  return rewriter.before(node).reshape(node.input(0), node.output()->type.shape);
}

// expand(expand(x, a), b) -> expand(x, b)
Value* expand_of_expand(Rewriter& rewriter, Node& node) {
  const Node* inner = producer(node.input(0), Op::expand);
  if (node.op != Op::expand || inner == nullptr) return nullptr;
  return rewriter.before(node).expand(inner->input(0), node.output()->type.shape);
}

// slice(slice(x, s, n, t), s2, n2, t2) on one axis -> slice(x, s + s2*t, n2, t*t2)
Value* slice_of_slice(Rewriter& rewriter, Node& node) {
  const Node* inner = producer(node.input(0), Op::slice);
  if (node.op != Op::slice || inner == nullptr) return nullptr;
  if (inner->attr<int64_t>("axis") != node.attr<int64_t>("axis")) return nullptr;
  ir::Attrs attrs = node.attrs;
  const int64_t step = inner->attr<int64_t>("step");
  attrs["start"] = inner->attr<Dim>("start") + node.attr<Dim>("start") * step;
  attrs["step"] = step * node.attr<int64_t>("step");
  return rewriter.before(node).value(Op::slice, {inner->input(0)}, std::move(attrs));
}

// slice(concat(a, b, ...)) -> slice of the one operand that holds the whole range
Value* slice_of_concat(Rewriter& rewriter, Node& node) {
  const Node* concat = producer(node.input(0), Op::concat);
  if (node.op != Op::slice || concat == nullptr) return nullptr;
  const int64_t axis = node.attr<int64_t>("axis");
  if (concat->attr<int64_t>("axis") != axis) return nullptr;
  const Dim& start = node.attr<Dim>("start");
  const Dim end = start + (node.attr<Dim>("size") - 1) * node.attr<int64_t>("step") + 1;
  Dim offset = 0;
  for (Value* part : concat->inputs) {
    const Dim& size = part->type.shape[axis];
    if (provably_less_equal(offset, start) && provably_less_equal(end, offset + size)) {
      ir::Attrs attrs = node.attrs;
      attrs["start"] = start - offset;
      return rewriter.before(node).value(Op::slice, {part}, std::move(attrs));
    }
    offset += size;
  }
  return nullptr;
}

// A slice along an axis that an expand broadcasts -> a smaller expand
Value* slice_of_expand(Rewriter& rewriter, Node& node) {
  const Node* expand = producer(node.input(0), Op::expand);
  if (node.op != Op::slice || expand == nullptr) return nullptr;
  Value* x = expand->input(0);
  const int64_t lead = static_cast<int64_t>(node.output()->type.rank() - x->type.rank());
  const int64_t axis = node.attr<int64_t>("axis");
  if (axis >= lead && !x->type.shape[axis - lead].is_constant(1)) return nullptr;
  return rewriter.before(node).expand(x, node.output()->type.shape);
}

// f(expand(x), y) -> expand(f(x, y)): the op broadcasts by itself as far as its operands need, each
// element is computed once, and an expand that is still needed may vanish further down
Value* pointwise_of_expand(Rewriter& rewriter, Node& node) {
  if (!ir::is_pointwise(node.op)) return nullptr;
  std::vector<Value*> inputs = node.inputs;
  for (Value*& x : inputs) {
    if (const Node* expand = producer(x, Op::expand)) x = expand->input(0);
  }
  if (inputs == node.inputs) return nullptr;
  ir::Builder builder = rewriter.before(node);
  return builder.expand(builder.value(node.op, std::move(inputs), node.attrs),
                        node.output()->type.shape);
}

// matmul(reshape(x[.., k], [m, k]), w[k, n]) -> reshape(matmul(x, w), [m, n]), linear likewise:
// each row is computed by itself, so the reshape may sink, and often meets its inverse
Value* contraction_of_reshape(Rewriter& rewriter, Node& node) {
  if (node.op != Op::linear && node.op != Op::matmul) return nullptr;
  const Node* reshape = producer(node.input(0), Op::reshape);
  if (reshape == nullptr || node.input(1)->type.rank() != 2) return nullptr;
  Value* x = reshape->input(0);
  const Shape& merged = reshape->output()->type.shape;
  if (x->type.rank() < 2 || x->type.shape.back() != merged.back()) return nullptr;
  std::vector<Value*> inputs = node.inputs;
  inputs[0] = x;
  ir::Builder builder = rewriter.before(node);
  return builder.reshape(builder.value(node.op, std::move(inputs), node.attrs),
                         node.output()->type.shape);
}

// attention(q, k, v, expand(mask)) -> attention(q, k, v, mask), which broadcasts it
Value* expanded_mask(Rewriter& rewriter, Node& node) {
  if (node.op != Op::attention) return nullptr;
  const Node* expand = producer(node.input(3), Op::expand);
  if (expand == nullptr) return nullptr;
  std::vector<Value*> inputs = node.inputs;
  inputs[3] = expand->input(0);
  return rewriter.before(node).value(Op::attention, std::move(inputs), node.attrs);
}

// Whether reshaping only adds or removes axes of size 1.
bool same_without_ones(const Shape& a, const Shape& b) {
  auto without_ones = [](const Shape& shape) {
    Shape result;
    std::copy_if(shape.begin(), shape.end(), std::back_inserter(result),
                 [](const Dim& dim) { return !dim.is_constant(1); });
    return result;
  };
  return without_ones(a) == without_ones(b);
}

// reshape(expand(x)) -> expand(reshape(x)), where the reshape only adds axes of size 1
Value* unsqueeze_of_expand(Rewriter& rewriter, Node& node) {
  const Node* expand = producer(node.input(0), Op::expand);
  if (node.op != Op::reshape || expand == nullptr) return nullptr;
  const Shape &from = expand->output()->type.shape, &to = node.output()->type.shape;
  if (to.size() < from.size() || !same_without_ones(from, to)) return nullptr;
  Value* x = expand->input(0);
  Shape shape(from.size() - x->type.rank(), Dim(1));  // x with the leading axes that expand adds
  shape.insert(shape.end(), x->type.shape.begin(), x->type.shape.end());
  Shape reshaped;
  for (size_t i = 0, j = 0; i < to.size(); ++i) {
    while (j < from.size() && from[j].is_constant(1) && !to[i].is_constant(1)) ++j;
    reshaped.push_back(j < from.size() && from[j] == to[i] ? shape[j++] : Dim(1));
  }
  ir::Builder builder = rewriter.before(node);
  if (!provably_equal(product(reshaped), product(x->type.shape))) return nullptr;
  return builder.expand(builder.reshape(x, std::move(reshaped)), to);
}

}  // namespace

// Chains of moves shortened: the formulas are with the functions above. Holds afterwards: no
// reshape of a reshape, permute of a permute, expand of an expand; no expand that feeds a pointwise
// op. Shapes are compared symbolically; what cannot be proven stays.
bool simplify_shapes(ir::Graph& graph, PassContext&) {
  return rewrite(graph, [](Rewriter& rewriter, Node& node) -> Value* {
    if (node.inputs.empty()) return nullptr;
    for (auto* rule : {reshape_of_reshape, permute_of_permute, permute_of_ones, expand_of_expand,
                       slice_of_slice, slice_of_concat, slice_of_expand, pointwise_of_expand,
                       unsqueeze_of_expand, contraction_of_reshape, expanded_mask}) {
      if (Value* result = rule(rewriter, node)) return result;
    }
    return nullptr;
  });
}

}  // namespace kiln::passes
