#include "passes/canonicalise.h"

#include <algorithm>

#include "ir/op_table.h"
#include "passes/pass.h"

namespace kiln::passes {
namespace {

using ir::Dim;
using ir::Node;
using ir::Op;
using ir::Shape;
using ir::Value;
using Axes = std::vector<int64_t>;

bool all_zero(const std::vector<Dim>& dims) {
  return std::all_of(dims.begin(), dims.end(), [](const Dim& dim) { return dim.is_constant(0); });
}

// dim_value(4) -> constant 4; full([], x) -> constant x
Value* source_to_constant(Rewriter& rewriter, Node& node) {
  if (node.op == Op::dim_value && node.attr<Dim>("value").is_constant()) {
    return rewriter.before(node).constant(
        ir::Literal::scalar_int(node.output()->type.dtype, node.attr<Dim>("value").constant()));
  }
  if (node.op == Op::full && node.output()->type.rank() == 0) {
    return rewriter.before(node).scalar(node.output()->type.dtype, node.attr<double>("value"));
  }
  return nullptr;
}

// A value without elements is a constant, whatever it would be computed from, or filled with anything where a size of it
// is not known.
Value* empty_to_constant(Rewriter& rewriter, Node& node) {
  if (node.op == Op::constant || node.outputs.size() != 1) return nullptr;
  // A check of nothing finds nothing; others stay, and would be met again and again.
  const bool checks = node.op == Op::check_index || node.op == Op::check_nonzero;
  if (!checks && ir::may_fail(node)) return nullptr;
  const ir::Type& type = node.output()->type;
  if (std::ranges::none_of(type.shape, [](const Dim& size) { return size.is_constant(0); }))
    return nullptr;
  std::vector<int64_t> shape;
  for (const Dim& size : type.shape) {
    if (size.is_constant()) shape.push_back(size.constant());
  }
  if (shape.size() < type.shape.size()) {
    if (node.op == Op::full) return nullptr;
    return filled(rewriter, node, 0);
  }
  std::byte* data = nullptr;
  return rewriter.before(node).constant(ir::Literal::allocate(type.dtype, shape, &data));
}

// A product of rows without elements is zeros, or the bias.
Value* product_of_nothing(Rewriter& rewriter, Node& node) {
  if (node.op != Op::matmul && node.op != Op::linear) return nullptr;
  if (!node.input(0)->type.shape.back().is_constant(0)) return nullptr;
  const ir::Type& type = node.output()->type;
  if (node.op == Op::linear && node.input(2) != nullptr)
    return rewriter.before(node).value(Op::expand, {node.input(2)}, {{"shape", type.shape}});
  return filled(rewriter, node, 0);
}

// Moves that leave everything where it is.
Value* identity_move(Rewriter&, Node& node) {
  Value* x = node.input(0);
  switch (node.op) {
    case Op::reshape:
    case Op::expand:
      return x->type.shape == node.output()->type.shape ? x : nullptr;
    case Op::permute:
      return is_identity(node.attr<Axes>("axes")) ? x : nullptr;
    case Op::flip:
      return node.attr<Axes>("axes").empty() ? x : nullptr;
    case Op::concat:
      return node.inputs.size() == 1 ? x : nullptr;
    case Op::slice: {
      const Dim& whole = x->type.shape[node.attr<int64_t>("axis")];
      const bool all = node.attr<Dim>("start").is_constant(0) && node.attr<int64_t>("step") == 1 &&
                       provably_equal(node.attr<Dim>("size"), whole);
      return all ? x : nullptr;
    }
    case Op::pad: {
      const bool none = all_zero(node.attr<std::vector<Dim>>("before")) &&
                        all_zero(node.attr<std::vector<Dim>>("after"));
      return none ? x : nullptr;
    }
    default:
      return nullptr;
  }
}

// concat(a, empty, b) -> concat(a, b)
Value* concat_without_empty(Rewriter& rewriter, Node& node) {
  if (node.op != Op::concat) return nullptr;
  const int64_t axis = node.attr<int64_t>("axis");
  std::vector<Value*> kept;
  for (Value* x : node.inputs) {
    if (!x->type.shape[axis].is_constant(0)) kept.push_back(x);
  }
  if (kept.empty() || kept.size() == node.inputs.size()) return nullptr;
  return rewriter.before(node).value(Op::concat, std::move(kept), node.attrs);
}

// expand, reshape, permute or slice of one number -> full; cast(full) -> full
Value* move_of_uniform(Rewriter& rewriter, Node& node) {
  if (node.op != Op::expand && node.op != Op::reshape && node.op != Op::permute &&
      node.op != Op::slice && node.op != Op::cast) {
    return nullptr;
  }
  const bool from_scalar = literal_of(node.input(0)) && literal_of(node.input(0))->elements() == 1;
  if (!producer(node.input(0), Op::full) && !(node.op == Op::expand && from_scalar)) return nullptr;
  const double value = *uniform_value(node.input(0));
  if (!is_exact(node.output()->type.dtype, value)) return nullptr;
  return filled(rewriter, node, value);
}

// A reduction over no axes, or over axes of size 1, only changes the shape.
Value* trivial_reduction(Rewriter& rewriter, Node& node) {
  if (ir::op_info(node.op).kind != ir::OpKind::Reduce || !node.has_attr("axes")) return nullptr;
  Value* x = node.input(0);
  for (int64_t axis : node.attr<Axes>("axes")) {
    if (!x->type.shape[axis].is_constant(1)) return nullptr;
  }
  return rewriter.before(node).reshape(x, node.output()->type.shape);
}

// matmul(a, permute(b, [.., last, i])) -> matmul(a, permute(b, [.., i, last])), transposed the
// other way: the permute leaves the innermost axis in place, and if it only swapped the last two it
// is gone
Value* matmul_of_transpose(Rewriter& rewriter, Node& node) {
  if (node.op != Op::matmul) return nullptr;
  const Node* permute = producer(node.input(1), Op::permute);
  if (permute == nullptr) return nullptr;
  Axes axes = permute->attr<Axes>("axes");
  const size_t rank = axes.size();
  if (axes[rank - 2] != static_cast<int64_t>(rank) - 1) return nullptr;
  std::swap(axes[rank - 1], axes[rank - 2]);
  ir::Builder builder = rewriter.before(node);
  Value* b = permute->input(0);
  if (!is_identity(axes)) b = builder.permute(b, std::move(axes));
  ir::Attrs attrs = node.attrs;
  attrs["transpose_b"] = !node.attr<bool>("transpose_b");
  return builder.value(Op::matmul, {node.input(0), b}, std::move(attrs));
}

// matmul(x, w) with a transposed rank-2 weight -> linear(x, w): the weight serves every row at once
Value* matmul_to_linear(Rewriter& rewriter, Node& node) {
  if (node.op != Op::matmul || !node.attr<bool>("transpose_b")) return nullptr;
  const Value* weight = node.input(1);
  const bool constant =
      literal_of(weight) != nullptr || producer(weight, Op::dequantize) != nullptr;
  if (weight->type.rank() != 2 || !constant) return nullptr;
  ir::Attrs attrs = node.attrs;
  attrs.erase("transpose_b");
  return rewriter.before(node).value(Op::linear, node.inputs, std::move(attrs));
}

// The size by which a zero pad widens one axis on one side, if a convolution can take it over.
std::optional<int64_t> as_padding(const Dim& size) {
  if (!size.is_constant() || size.constant() < 0) return std::nullopt;
  return size.constant();
}

// convolution(pad(x, zeros)) -> convolution(x) with that much more padding
Value* convolution_of_pad(Rewriter& rewriter, Node& node) {
  if (node.op != Op::convolution) return nullptr;
  const Node* pad = producer(node.input(0), Op::pad);
  if (pad == nullptr || pad->attr<std::string>("mode") != "constant") return nullptr;
  if (pad->attr<double>("value") != 0) return nullptr;
  const auto& before = pad->attr<std::vector<Dim>>("before");
  const auto& after = pad->attr<std::vector<Dim>>("after");
  const size_t first = node.attr<std::string>("layout") == "nchw" ? 2 : 1;
  Axes padding_before = node.attr<Axes>("padding_before");
  Axes padding_after = node.attr<Axes>("padding_after");
  for (size_t axis = 0; axis < before.size(); ++axis) {
    const auto low = as_padding(before[axis]), high = as_padding(after[axis]);
    if (!low || !high) return nullptr;
    if (axis >= first && axis < first + padding_before.size()) {
      padding_before[axis - first] += *low;
      padding_after[axis - first] += *high;
    } else if (*low != 0 || *high != 0) {
      return nullptr;
    }
  }
  ir::Attrs attrs = node.attrs;
  attrs["padding_before"] = std::move(padding_before);
  attrs["padding_after"] = std::move(padding_after);
  std::vector<Value*> inputs = node.inputs;
  inputs[0] = pad->input(0);
  return rewriter.before(node).value(Op::convolution, std::move(inputs), std::move(attrs));
}

// A pool whose windows all reach beyond the end of the image -> one whose last elements are those of the image. ceil_mode
// gives such windows, of any size: transformers' EfficientNet takes the mean of 7 x 7 pixels by one of 1280 x 1280.
Value* pool_within_image(Rewriter& rewriter, Node& node) {
  if (node.op != Op::max_pool && node.op != Op::avg_pool) return nullptr;
  const bool is_mean = node.op == Op::avg_pool;
  if (is_mean && node.attr<bool>("count_padding") && !node.has_attr("divisor")) return nullptr;
  auto kernel = node.attr<Axes>("kernel"), after = node.attr<Axes>("padding_after");
  const auto before = node.attr<Axes>("padding_before");
  const size_t first = node.attr<std::string>("layout") == "nchw" ? 2 : 1;
  bool is_changed = false;
  for (size_t i = 0; i < kernel.size(); ++i) {
    const Dim& size = node.input(0)->type.shape[first + i];
    const int64_t step = is_mean ? 1 : node.attr<Axes>("dilation")[i];
    if (!size.is_constant()) continue;
    const int64_t seen = (size.constant() + before[i] + step - 1) / step;
    if (seen < 1 || kernel[i] <= seen || after[i] < (kernel[i] - seen) * step) continue;
    after[i] -= (kernel[i] - seen) * step;
    kernel[i] = seen;
    is_changed = true;
  }
  if (!is_changed) return nullptr;
  ir::Attrs attrs = node.attrs;
  attrs["kernel"] = kernel;
  attrs["padding_after"] = after;
  return rewriter.before(node).value(node.op, node.inputs, std::move(attrs));
}

// Whether every window has an element that is no padding.
bool has_no_empty_window(const Node& pool) {
  const auto kernel = pool.attr<Axes>("kernel"), dilation = pool.attr<Axes>("dilation");
  const auto before = pool.attr<Axes>("padding_before"), after = pool.attr<Axes>("padding_after");
  for (size_t i = 0; i < kernel.size(); ++i) {
    if (dilation[i] != 1 || before[i] >= kernel[i] || after[i] >= kernel[i]) return false;
  }
  return true;
}

// max_pool(dequantize(q)) -> dequantize(max_pool(q)), where a larger integer is a larger number
Value* max_pool_of_integers(Rewriter& rewriter, Node& node) {
  if (node.op != Op::max_pool || !has_no_empty_window(node)) return nullptr;
  const Node* real = producer(node.input(0), Op::dequantize);
  if (real == nullptr || real->input(1)->type.rank() > 0) return nullptr;
  if (real->input(2) != nullptr && real->input(2)->type.rank() > 0) return nullptr;
  const DType dtype = real->input(0)->type.dtype;
  const auto scale = uniform_value(real->input(1));
  if ((dtype != DType::U8 && dtype != DType::I8) || !(scale.value_or(0) > 0)) return nullptr;
  ir::Builder builder = rewriter.before(node);
  std::vector<Value*> operands = real->inputs;
  operands[0] = builder.value(Op::max_pool, {real->input(0)}, node.attrs);
  return builder.value(Op::dequantize, std::move(operands), real->attrs);
}

// attention with a mask that keeps everything, or adds nothing -> attention without a mask
Value* attention_with_idle_mask(Rewriter& rewriter, Node& node) {
  if (node.op != Op::attention || node.input(3) == nullptr) return nullptr;
  const double idle = node.input(3)->type.dtype == DType::Bool ? 1 : 0;
  if (uniform_value(node.input(3)) != idle) return nullptr;
  return rewriter.before(node).value(Op::attention, {node.input(0), node.input(1), node.input(2)},
                                     node.attrs);
}

}  // namespace

Value* canonicalise_other(Rewriter& rewriter, Node& node) {
  for (auto* rule : {empty_to_constant, product_of_nothing, source_to_constant, identity_move,
                     concat_without_empty, move_of_uniform, trivial_reduction, matmul_of_transpose,
                     matmul_to_linear, convolution_of_pad, pool_within_image, max_pool_of_integers,
                     attention_with_idle_mask}) {
    if (Value* result = rule(rewriter, node)) return result;
  }
  return nullptr;
}

// One spelling for each meaning, so that later passes have one pattern to look for. The rules are
// the functions above and in canonicalise_pointwise.cpp. Holds afterwards: no identities; constant
// operands of commutative ops on the right; pointwise operands that are one number are scalars;
// integer powers up to 3 are products; what has no elements is a constant. Results keep every bit,
// but powers round as products do.
bool canonicalise(ir::Graph& graph, PassContext&) {
  return rewrite(graph, [](Rewriter& rewriter, Node& node) {
    Value* result = canonicalise_other(rewriter, node);
    if (result == nullptr && ir::is_pointwise(node.op))
      result = canonicalise_pointwise(rewriter, node);
    return result;
  });
}

}  // namespace kiln::passes
