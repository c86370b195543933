// Channels-last convolutions and pools. Each becomes  permute -> op in nhwc -> permute back; then
// the permutes back are pushed down through everything that does not care about the order of axes,
// until they meet the next permute and cancel.
//
// Before: convolutions and pools in nchw. After: 2-D (and 1-D) convolutions in nhwc; the permutes
// that remain are at the borders of channels-last regions. Adjacent permutes are merged by
// simplify_shapes.
#include <algorithm>
#include <array>

#include "ir/builder.h"
#include "ir/op_table.h"
#include "passes/pass.h"

namespace kiln::passes {
namespace {

using ir::Builder;
using ir::Dim;
using ir::Graph;
using ir::Node;
using ir::Op;
using ir::Shape;
using ir::Value;

using Axes = std::vector<int64_t>;

const Axes kToChannelsLast = {0, 2, 3, 1};
const Axes kToChannelsFirst = {0, 3, 1, 2};
// nchw axis -> nhwc axis
constexpr std::array<int64_t, 4> kLastAxisOf = {0, 3, 1, 2};

// The channels-last value behind a permute to channels-first, or null.
Value* channels_last_source(const Value* value) {
  const Node* node = value->producer;
  if (node == nullptr || node->op != Op::permute) return nullptr;
  return node->attr<Axes>("axes") == kToChannelsFirst ? node->input(0) : nullptr;
}

bool is_spatial_1d(const Node& node) {
  return node.op == Op::convolution && node.input(0)->type.rank() == 3;
}

bool takes_channels_last(const Node& node) {
  if (!node.has_attr("layout") || node.attr<std::string>("layout") != "nchw") return false;
  const size_t rank = node.input(0)->type.rank();
  if (node.op == Op::convolution) return rank == 4;
  // A pool alone is not worth two permutes.
  return rank == 4 && channels_last_source(node.input(0)) != nullptr;
}

// A 1-D convolution as a 2-D one of height 1.
void make_two_dimensional(Graph& graph, Node* node) {
  Builder builder(graph, node);
  builder.set_location(node->location);
  const auto with_height = [&](Value* x) {
    const Shape& s = x->type.shape;
    return builder.reshape(x, {s[0], s[1], 1, s[2]});
  };
  ir::Attrs attrs = node->attrs;
  for (const char* name : {"stride", "padding_before", "padding_after", "dilation"}) {
    Axes values = node->attr<Axes>(name);
    values.insert(values.begin(), std::string_view(name).starts_with("padding") ? 0 : 1);
    attrs[name] = std::move(values);
  }
  std::vector<Value*> inputs = {with_height(node->input(0)), with_height(node->input(1))};
  if (node->input(2) != nullptr) inputs.push_back(node->input(2));
  Value* result = builder.value(Op::convolution, std::move(inputs), std::move(attrs));
  graph.replace_all_uses(node->output(), builder.reshape(result, node->output()->type.shape));
}

Value* to_channels_last(Builder& builder, Value* x) {
  if (Value* source = channels_last_source(x)) return source;
  return builder.permute(x, kToChannelsLast);
}

Value* window_op_in_channels_last(Builder& builder, const Node& node) {
  ir::Attrs attrs = node.attrs;
  attrs["layout"] = std::string("nhwc");
  std::vector<Value*> inputs = node.inputs;
  inputs[0] = to_channels_last(builder, inputs[0]);
  if (node.op == Op::convolution) inputs[1] = builder.permute(inputs[1], kToChannelsLast);
  return builder.permute(builder.value(node.op, std::move(inputs), std::move(attrs)),
                         kToChannelsFirst);
}

// Whether permuting the operand costs nothing worth counting: it is a constant, or it broadcasts
// from little.
bool is_cheap_to_permute(const Value* x) {
  if (channels_last_source(x) != nullptr || x->type.rank() <= 1) return true;
  return x->producer != nullptr && x->producer->op == Op::constant;
}

// An operand broadcast against rank 4, in channels-last order.
Value* broadcast_operand(Builder& builder, Value* x) {
  if (x->type.rank() == 0) return x;
  if (x->type.rank() == 4) return to_channels_last(builder, x);
  Shape shape(4 - x->type.rank(), Dim(1));
  shape.insert(shape.end(), x->type.shape.begin(), x->type.shape.end());
  return builder.permute(builder.reshape(x, std::move(shape)), kToChannelsLast);
}

// f(permute(x), y) -> permute(f(x, permute^-1(y)))
Value* push_through_pointwise(Builder& builder, const Node& node) {
  if (node.output()->type.rank() != 4) return nullptr;
  bool any = false;
  for (const Value* x : node.inputs) {
    any |= channels_last_source(x) != nullptr;
    if (!is_cheap_to_permute(x)) return nullptr;
  }
  if (!any) return nullptr;
  std::vector<Value*> inputs;
  for (Value* x : node.inputs) inputs.push_back(broadcast_operand(builder, x));
  return builder.permute(builder.value(node.op, std::move(inputs), node.attrs), kToChannelsFirst);
}

// reduce(permute(x), axes) -> reduce(x, mapped axes), permuted where all four axes are kept.
Value* push_through_reduce(Builder& builder, const Node& node) {
  Value* source = channels_last_source(node.input(0));
  if (source == nullptr || !node.has_attr("axes")) return nullptr;
  Axes axes = node.attr<Axes>("axes");
  const bool keepdim = node.attr<bool>("keepdim");
  Axes kept;  // nchw axes that stay, in the order of the channels-last result
  for (int64_t axis : {0, 2, 3, 1}) {
    if (std::find(axes.begin(), axes.end(), axis) == axes.end()) kept.push_back(axis);
  }
  for (int64_t& axis : axes) axis = kLastAxisOf[static_cast<size_t>(axis)];
  std::sort(axes.begin(), axes.end());
  ir::Attrs attrs = node.attrs;
  attrs["axes"] = axes;
  Value* result = builder.value(node.op, {source}, std::move(attrs));
  if (keepdim) return builder.permute(result, kToChannelsFirst);
  if (std::is_sorted(kept.begin(), kept.end())) return result;
  Axes back(kept.size());
  Axes sorted = kept;
  std::sort(sorted.begin(), sorted.end());
  for (size_t i = 0; i < sorted.size(); ++i) {
    back[i] = std::find(kept.begin(), kept.end(), sorted[i]) - kept.begin();
  }
  return builder.permute(result, std::move(back));
}

std::vector<Dim> reorder(const std::vector<Dim>& values) {
  return {values[0], values[2], values[3], values[1]};
}

Value* push_through_pad(Builder& builder, const Node& node) {
  Value* source = channels_last_source(node.input(0));
  if (source == nullptr) return nullptr;
  ir::Attrs attrs = node.attrs;
  attrs["before"] = reorder(node.attr<std::vector<Dim>>("before"));
  attrs["after"] = reorder(node.attr<std::vector<Dim>>("after"));
  return builder.permute(builder.value(Op::pad, {source}, std::move(attrs)), kToChannelsFirst);
}

// Ops with one axis attribute that keep the shape's order: concat, slice, softmax, cumsum.
Value* push_through_axis_op(Builder& builder, const Node& node) {
  std::vector<Value*> inputs;
  for (const Value* x : node.inputs) {
    Value* source = channels_last_source(x);
    if (source == nullptr) return nullptr;
    inputs.push_back(source);
  }
  if (inputs.empty()) return nullptr;
  ir::Attrs attrs = node.attrs;
  attrs["axis"] = kLastAxisOf[static_cast<size_t>(node.attr<int64_t>("axis"))];
  return builder.permute(builder.value(node.op, std::move(inputs), std::move(attrs)),
                         kToChannelsFirst);
}

// reshape(permute(x), [N, C, H*W]) -> permute(reshape(x, [N, H*W, C])): patches of a vision
// transformer.
Value* push_through_reshape(Builder& builder, const Node& node) {
  Value* source = channels_last_source(node.input(0));
  if (source == nullptr) return nullptr;
  const Shape& in = source->type.shape;  // N, H, W, C
  const Shape& out = node.output()->type.shape;
  if (out.size() != 3 || !(out[0] == in[0]) || !(out[1] == in[3])) return nullptr;
  return builder.permute(builder.reshape(source, {in[0], in[1] * in[2], in[3]}), {0, 2, 1});
}

Value* push_through(Builder& builder, const Node& node) {
  if (is_pointwise(node.op)) return push_through_pointwise(builder, node);
  switch (node.op) {
    case Op::reduce_sum:
    case Op::reduce_mean:
    case Op::reduce_prod:
    case Op::reduce_max:
    case Op::reduce_min:
      return push_through_reduce(builder, node);
    case Op::pad:
      return push_through_pad(builder, node);
    case Op::concat:
    case Op::slice:
    case Op::softmax:
    case Op::log_softmax:
    case Op::cumsum:
      return push_through_axis_op(builder, node);
    case Op::reshape:
      return push_through_reshape(builder, node);
    default:
      return nullptr;
  }
}

std::vector<Node*> node_list(const Graph& graph) {
  std::vector<Node*> nodes;
  for (const auto& node : graph.nodes()) nodes.push_back(node.get());
  return nodes;
}

}  // namespace

bool assign_layouts(Graph& graph, PassContext&) {
  bool changed = false;
  for (Node* node : node_list(graph)) {
    if (!is_spatial_1d(*node) || node->attr<std::string>("layout") != "nchw") continue;
    make_two_dimensional(graph, node);
    graph.erase(node);
    changed = true;
  }
  // In graph order, so that what a node pushes down is seen by its users.
  for (Node* node : node_list(graph)) {
    Builder builder(graph, node);
    builder.set_location(node->location);
    Value* result = takes_channels_last(*node) ? window_op_in_channels_last(builder, *node)
                                               : push_through(builder, *node);
    if (result == nullptr) continue;
    graph.replace_all_uses(node->output(), result);
    graph.erase(node);
    changed = true;
  }
  return changed;
}

}  // namespace kiln::passes
