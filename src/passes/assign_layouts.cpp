// Channels-last convolutions. The work is in two steps, taken node by node in graph order:
//
//   1. A convolution in nchw becomes
//      permute to channels-last -> convolution in nhwc -> permute to channels-first.
//   2. Every op that follows is asked to let the last permute pass: f(permute(x)) ->
//      permute'(f'(x)), with the axes, sizes and small constants of f put in the other order. The
//      permute thus sinks until it meets the one in front of the next convolution, where both
//      vanish.
//
// The memory format is part of the graph, as permutes: no value has a layout other than row-major,
// and every other pass and backend stays ignorant of the subject.
#include <algorithm>
#include <numeric>
#include <set>

#include "ir/op_table.h"
#include "passes/pass.h"
#include "passes/rewrite.h"

namespace kiln::passes {
namespace {

using ir::Builder;
using ir::Dim;
using ir::Literal;
using ir::Node;
using ir::Op;
using ir::Shape;
using ir::Value;
using Axes = std::vector<int64_t>;

// [0, 2, .., rank - 1, 1]: the permute from channels-first to channels-last.
Axes to_last(size_t rank) {
  Axes axes(rank);
  std::iota(axes.begin(), axes.end(), int64_t{1});
  axes.front() = 0;
  axes.back() = 1;
  return axes;
}
Axes to_first(size_t rank) { return inverse(to_last(rank)); }

// The channels-last place of a channels-first axis.
int64_t moved_axis(int64_t axis, size_t rank) { return to_first(rank)[axis]; }

template <typename T>
std::vector<T> reordered(const std::vector<T>& values) {
  std::vector<T> result;
  for (int64_t axis : to_last(values.size())) result.push_back(values[axis]);
  return result;
}

// Copies elements of T to their permuted places; the innermost loop runs over the result's last
// axis.
template <typename T>
void copy_permuted(const Literal& from, const Axes& shape, const Axes& strides, std::byte* data) {
  const T* source = from.data<T>();
  T* target = reinterpret_cast<T*>(data);
  const int64_t rows = from.elements() / std::max<int64_t>(shape.back(), 1);
  Axes index(shape.size() - 1, 0);
  int64_t offset = 0;
  for (int64_t row = 0; row < rows; ++row) {
    for (int64_t i = 0; i < shape.back(); ++i) *target++ = source[offset + i * strides.back()];
    for (size_t k = index.size(); k-- > 0;) {
      offset += strides[k];
      if (++index[k] < shape[k]) break;
      offset -= shape[k] * strides[k];
      index[k] = 0;
    }
  }
}

Literal permuted(const Literal& literal, const Axes& axes) {
  Axes dense(axes.size(), 1), shape, strides;
  for (size_t i = axes.size() - 1; i > 0; --i) dense[i - 1] = dense[i] * literal.shape[i];
  for (int64_t axis : axes) {
    shape.push_back(literal.shape[axis]);
    strides.push_back(dense[axis]);
  }
  std::byte* data = nullptr;
  Literal result = Literal::allocate(literal.dtype, shape, &data);
  result.replaceable = literal.replaceable;
  switch (dtype_size(literal.dtype)) {
    case 1:
      copy_permuted<uint8_t>(literal, shape, strides, data);
      break;
    case 2:
      copy_permuted<uint16_t>(literal, shape, strides, data);
      break;
    case 4:
      copy_permuted<uint32_t>(literal, shape, strides, data);
      break;
    default:
      copy_permuted<uint64_t>(literal, shape, strides, data);
  }
  return result;
}

class LayoutAssigner {
 public:
  explicit LayoutAssigner(Rewriter& rewriter) : rewriter_(rewriter) {
    for (const auto& node : rewriter.graph().nodes()) {
      if (node->op != Op::permute) continue;
      const Value* x = node->input(0);
      if (node->attr<Axes>("axes") == to_last(x->type.rank())) permuted_.insert(x);
    }
  }

  // What to use instead of the node's result, or null.
  Value* visit(Node& node) {
    Builder builder = rewriter_.before(node);
    if (is_convolution_to_convert(node)) return convolution(builder, node);
    return sink(builder, node);
  }

 private:
  // --- Permutes that sink ---

  // The channels-last value whose permute to channels-first this is, or null. For rank 4 the
  // model's own permutes count; for rank 3 they do not: there they are everyday transposes.
  Value* source_of(const Value* value) const {
    const Node* permute = producer(value, Op::permute);
    if (permute == nullptr || value->type.rank() < 3) return nullptr;
    if (permute->attr<Axes>("axes") != to_first(value->type.rank())) return nullptr;
    return value->type.rank() == 4 || made_.contains(value) ? permute->input(0) : nullptr;
  }

  Value* channels_first(Builder& builder, Value* x) {
    Value* result = builder.permute(x, to_first(x->type.rank()));
    made_.insert(result);
    return result;
  }

  Value* channels_last(Builder& builder, Value* x) const {
    if (Value* source = source_of(x)) return source;
    if (const Literal* literal = literal_of(x)) {
      return builder.constant(permuted(*literal, to_last(x->type.rank())));
    }
    return builder.permute(x, to_last(x->type.rank()));
  }

  // Whether the operand in channels-last order costs no work at run time: its permute vanishes,
  // happens now, moves axes of size 1 only, or is there already for another user.
  bool is_free(const Value* x) const {
    if (source_of(x) != nullptr || literal_of(x) != nullptr) return true;
    const Shape& shape = x->type.shape;
    const auto long_axes =
        std::count_if(shape.begin() + std::min<size_t>(shape.size(), 1), shape.end(),
                      [](const Dim& dim) { return !dim.is_constant(1); });
    if (shape.size() < 3 || long_axes <= 1) return true;
    return permuted_.contains(x);
  }

  bool can_sink(const Node& node) const {
    const bool any = std::any_of(node.inputs.begin(), node.inputs.end(),
                                 [&](const Value* x) { return source_of(x) != nullptr; });
    return any && std::all_of(node.inputs.begin(), node.inputs.end(),
                              [&](const Value* x) { return is_free(x); });
  }

  Value* sink(Builder& builder, Node& node) {
    const ir::OpKind kind = ir::op_info(node.op).kind;
    // Scales are broadcast to x as the operands of a pointwise op are, if in blocks.
    if (ir::is_pointwise(node.op) || kind == ir::OpKind::Quantise) {
      return sink_pointwise(builder, node);
    }
    if (kind == ir::OpKind::Reduce && node.has_attr("axes")) return sink_reduce(builder, node);
    switch (node.op) {
      case Op::concat:
      case Op::slice:
      case Op::softmax:
      case Op::log_softmax:
      case Op::cumsum:
      case Op::cumprod:
      case Op::cummax:
      case Op::cummin:
      case Op::gather:
        return sink_axis_op(builder, node);
      case Op::pad:
        return sink_sizes_op(builder, node, {"before", "after"});
      case Op::expand:
        return sink_sizes_op(builder, node, {"shape"});
      case Op::max_pool:
      case Op::avg_pool:
        return sink_pool(builder, node);
      case Op::reshape:
        if (Value* image = unflatten(builder, node)) return image;
        return sink_flatten(builder, node);
      default:
        return nullptr;
    }
  }

  // f(permute(x), y) -> permute(f(x, y in channels-last order))
  Value* sink_pointwise(Builder& builder, Node& node) {
    const size_t rank = node.output()->type.rank();
    if (!can_sink(node)) return nullptr;
    std::vector<Value*> inputs;
    for (Value* x : node.inputs) {
      // In a longer shape the axes of a shorter one are others than those that its permute moves.
      if (source_of(x) != nullptr && x->type.rank() != rank) return nullptr;
      inputs.push_back(broadcast_operand(builder, x, rank));
    }
    return channels_first(builder, builder.value(node.op, std::move(inputs), node.attrs));
  }

  // An operand that broadcasts to the rank, in channels-last order and without leading axes of
  // size 1.
  Value* broadcast_operand(Builder& builder, Value* x, size_t rank) const {
    if (x->type.rank() == 0 || source_of(x) != nullptr)
      return x->type.rank() == 0 ? x : source_of(x);
    Shape shape(rank - x->type.rank(), Dim(1));
    shape.insert(shape.end(), x->type.shape.begin(), x->type.shape.end());
    if (const Literal* literal = literal_of(x)) {
      Literal wide = *literal;
      wide.shape.insert(wide.shape.begin(), rank - wide.shape.size(), 1);
      wide = permuted(wide, to_last(rank));
      while (wide.shape.size() > 1 && wide.shape.front() == 1) wide.shape.erase(wide.shape.begin());
      return builder.constant(std::move(wide));
    }
    return channels_last(builder, builder.reshape(x, std::move(shape)));
  }

  // reduce(permute(x), axes) -> permute(reduce(x, moved axes)), where the permute of what is left
  // may be none
  Value* sink_reduce(Builder& builder, Node& node) {
    Value* source = source_of(node.input(0));
    if (source == nullptr) return nullptr;
    const size_t rank = source->type.rank();
    const Axes& axes = node.attr<Axes>("axes");
    Axes moved;
    for (int64_t axis : axes) moved.push_back(moved_axis(axis, rank));
    std::sort(moved.begin(), moved.end());
    ir::Attrs attrs = node.attrs;
    attrs["axes"] = moved;
    Value* result = builder.value(node.op, {source}, std::move(attrs));
    if (node.attr<bool>("keepdim")) return channels_first(builder, result);
    Axes kept;  // channels-first axes that are left, in channels-last order
    for (int64_t axis : to_last(rank)) {
      if (std::find(axes.begin(), axes.end(), axis) == axes.end()) kept.push_back(axis);
    }
    Axes order(kept.size());
    std::iota(order.begin(), order.end(), int64_t{0});
    std::sort(order.begin(), order.end(), [&](int64_t a, int64_t b) { return kept[a] < kept[b]; });
    return is_identity(order) ? result : builder.permute(result, std::move(order));
  }

  // Ops with one `axis` whose result has the rank of the operand.
  Value* sink_axis_op(Builder& builder, Node& node) {
    if (!can_sink(node) || node.output()->type.rank() != node.input(0)->type.rank()) return nullptr;
    if (source_of(node.input(0)) == nullptr && node.op != Op::concat) return nullptr;
    ir::Attrs attrs = node.attrs;
    attrs["axis"] = moved_axis(node.attr<int64_t>("axis"), node.output()->type.rank());
    std::vector<Value*> inputs = node.inputs;
    for (Value*& x : inputs) {
      if (&x == &inputs[0] || node.op == Op::concat) x = channels_last(builder, x);
    }
    return channels_first(builder, builder.value(node.op, std::move(inputs), std::move(attrs)));
  }

  // Ops whose attributes list one size for each axis.
  Value* sink_sizes_op(Builder& builder, Node& node, std::initializer_list<const char*> names) {
    Value* source = source_of(node.input(0));
    if (source == nullptr || node.output()->type.rank() != source->type.rank()) return nullptr;
    ir::Attrs attrs = node.attrs;
    for (const char* name : names) attrs[name] = reordered(node.attr<std::vector<Dim>>(name));
    return channels_first(builder, builder.value(node.op, {source}, std::move(attrs)));
  }

  // A pool alone is not worth two permutes; behind a convolution it is free.
  Value* sink_pool(Builder& builder, Node& node) {
    Value* source = source_of(node.input(0));
    if (source == nullptr || node.attr<std::string>("layout") != "nchw") return nullptr;
    ir::Attrs attrs = node.attrs;
    attrs["layout"] = std::string("nhwc");
    return channels_first(builder, builder.value(node.op, {source}, std::move(attrs)));
  }

  // reshape(permute(x), [N, C, H*W]) -> permute(reshape(x, [N, H*W, C])): the patches of a vision
  // transformer
  Value* sink_flatten(Builder& builder, Node& node) {
    Value* source = source_of(node.input(0));
    const Shape& to = node.output()->type.shape;
    if (source == nullptr || source->type.rank() != 4 || to.size() != 3) return nullptr;
    const Shape& from = source->type.shape;  // N, H, W, C
    if (to[0] != from[0] || to[1] != from[3]) return nullptr;
    return channels_first(builder, builder.reshape(source, {from[0], from[1] * from[2], from[3]}));
  }

  // reshape(permute(x[N, H*W, C], [0, 2, 1]), [N, C, H, W]) -> permute(reshape(x, [N, H, W, C])): an image of patches,
  // as what follows a vision transformer takes it
  Value* unflatten(Builder& builder, const Node& node) {
    const Node* permute = producer(node.input(0), Op::permute);
    const Shape& to = node.output()->type.shape;
    if (permute == nullptr || to.size() != 4 || permute->attr<Axes>("axes") != Axes{0, 2, 1})
      return nullptr;
    const Shape& from = node.input(0)->type.shape;  // N, C, H*W
    if (to[0] != from[0] || to[1] != from[1] || to[2].is_constant(1) || to[3].is_constant(1))
      return nullptr;
    return channels_first(builder,
                          builder.reshape(permute->input(0), {to[0], to[2], to[3], to[1]}));
  }

  // --- Convolutions ---

  static bool is_convolution_to_convert(const Node& node) {
    if (node.op != Op::convolution || node.attr<std::string>("layout") != "nchw") return false;
    return node.input(0)->type.rank() == 3 || node.input(0)->type.rank() == 4;
  }

  Value* convolution(Builder& builder, Node& node) {
    const bool one_dimensional = node.input(0)->type.rank() == 3;
    std::vector<Value*> inputs = node.inputs;
    for (size_t i = 0; i < 2; ++i) {
      inputs[i] = channels_last(builder, inputs[i]);
      if (one_dimensional) inputs[i] = with_height(builder, inputs[i]);
    }
    ir::Attrs attrs = node.attrs;
    attrs["layout"] = std::string("nhwc");
    for (const char* name : {"stride", "padding_before", "padding_after", "dilation"}) {
      if (!one_dimensional) break;
      Axes values = node.attr<Axes>(name);
      values.insert(values.begin(), std::string_view(name).starts_with("padding") ? 0 : 1);
      attrs[name] = std::move(values);
    }
    Value* result = builder.value(Op::convolution, std::move(inputs), std::move(attrs));
    if (one_dimensional) {
      const Shape& s = result->type.shape;
      result = builder.reshape(result, {s[0], s[2], s[3]});
    }
    return channels_first(builder, result);
  }

  // [N, L, C] -> [N, 1, L, C]: a convolution over length is one over images of height 1.
  static Value* with_height(Builder& builder, Value* x) {
    const Shape& s = x->type.shape;
    if (const Literal* literal = literal_of(x)) {
      Literal tall = *literal;
      tall.shape.insert(tall.shape.begin() + 1, 1);
      return builder.constant(std::move(tall));
    }
    return builder.reshape(x, {s[0], 1, s[1], s[2]});
  }

  Rewriter& rewriter_;
  std::set<const Value*>
      permuted_;                 // that had a channels-last permute before; looked up, never walked
  std::set<const Value*> made_;  // permutes to channels-first that this pass made
};

}  // namespace

// Convolutions over one or two axes (one becomes two, of height 1) are in layout nhwc afterwards,
// with constant weights permuted now. Permutes are left at the borders of channels-last regions
// only: where an operand would need a permute of its own, or an op is not asked. Expects batch_norm
// to be folded. simplify_shapes removes what cancels.
bool assign_layouts(ir::Graph& graph, PassContext&) {
  Rewriter rewriter(graph);
  LayoutAssigner assigner(rewriter);
  std::vector<Node*> replaced;
  for (const auto& node : graph.nodes()) {
    Value* result = assigner.visit(*node);
    if (result == nullptr) continue;
    const std::string name = node->output()->name;
    replace(graph, node->output(), result);
    if (const Node* permute = producer(
            result, Op::permute)) {  // the model's name goes to the work, not to the permute
      graph.rename(result, name + ".permuted");
      graph.rename(permute->input(0), name);
    }
    replaced.push_back(node.get());
  }
  erase_replaced(graph, replaced);
  return !replaced.empty();
}

}  // namespace kiln::passes
