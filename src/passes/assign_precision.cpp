#include <algorithm>

#include "ir/op_table.h"
#include "passes/pass.h"
#include "passes/rewrite.h"

namespace kiln::passes {
namespace {

using ir::Node;
using ir::Op;
using ir::Value;

// f16 and bf16 operands are added up in f32.
bool assign_accumulators(ir::Graph& graph) {
  bool changed = false;
  for (const auto& node : graph.nodes()) {
    if (ir::op_info(node->op).kind != ir::OpKind::Contract) continue;
    if (!is_16_bit_float(node->input(0)->type.dtype) || node->has_attr("accumulate")) continue;
    node->attrs["accumulate"] = DType::F32;
    changed = true;
  }
  return changed;
}

// Whether a convolution has the value as its filters, or a view or cast of it.
bool is_filter(const Rewriter& rewriter, const Value* value) {
  return std::ranges::any_of(rewriter.users(value), [&](const Node* user) {
    if (user->op == Op::convolution) return user->input(1) == value;
    const bool passes_on = ir::op_info(user->op).view || user->op == Op::cast;
    return passes_on && is_filter(rewriter, user->output());
  });
}

// Whether each convolution that has the value as its filters has a quantised input: kernels of integers
// read both.
bool meets_integers(const Rewriter& rewriter, const Value* value) {
  return std::ranges::all_of(rewriter.users(value), [&](const Node* user) {
    if (user->op != Op::convolution) return meets_integers(rewriter, user->output());
    const Value* x = user->input(0);
    while (x->producer != nullptr && ir::op_info(x->producer->op).view) x = x->producer->input(0);
    return x->producer != nullptr && x->producer->op == Op::dequantize;
  });
}

// One scale and zero point for each filter, or for all.
bool is_by_filter(const Node& node) {
  return std::all_of(node.inputs.begin() + 1, node.inputs.end(), [&](const Value* value) {
    if (value == nullptr) return true;
    const ir::Shape& shape = value->type.shape;
    const size_t first = shape.size() == node.output()->type.rank() ? 1 : 0;
    return std::all_of(shape.begin() + static_cast<std::ptrdiff_t>(first), shape.end(),
                       [](const ir::Dim& size) { return size.is_constant(1); });
  });
}

// dequantize(constants) as the filters of a convolution -> constant: its kernels read filters of
// the operand's dtype, which they arrange when the engine is made.
Value* floating_filters(Rewriter& rewriter, Node& node, PassContext& context) {
  if (node.op != Op::dequantize || !is_filter(rewriter, node.output())) return nullptr;
  if (is_by_filter(node) && meets_integers(rewriter, node.output())) return nullptr;
  std::vector<const ir::Literal*> operands;
  for (const Value* input : node.inputs) {
    operands.push_back(literal_of(input));
    if (input != nullptr && operands.back() == nullptr) return nullptr;
  }
  return rewriter.before(node).constant(context.evaluate(node, operands).at(0));
}

}  // namespace

// Decides in what contractions compute. Afterwards those of f16 and bf16 operands say
// `accumulate = f32`, and quantised weights are where they can be used: filters that meet floats are
// floating constants; those that meet a quantised input, and weights of linear and matmul, stay integers in
// front of a dequantize, so that the engine holds them in their 8 bits. fold_constants keeps such a dequantize.
bool assign_precision(ir::Graph& graph, PassContext& context) {
  const bool changed = assign_accumulators(graph);
  if (!context.evaluate) return changed;
  return rewrite(graph, [&](Rewriter& rewriter,
                            Node& node) { return floating_filters(rewriter, node, context); }) ||
         changed;
}

}  // namespace kiln::passes
