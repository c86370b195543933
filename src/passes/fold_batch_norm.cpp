#include <cmath>

#include "passes/pass.h"
#include "passes/rewrite.h"

namespace kiln::passes {
namespace {

using ir::Literal;
using ir::Node;
using ir::Op;
using ir::Value;

// batch_norm(x) = x * scale + shift, for each channel.
struct Affine {
  std::vector<double> scale, shift;
  bool replaceable = false;  // as in ir::Literal
};

std::optional<Affine> affine_of(const Node& node) {
  Affine affine;
  std::vector<const Literal*> parameters;  // weight, bias, mean, variance
  for (size_t i = 1; i < 5; ++i) {
    parameters.push_back(literal_of(node.input(i)));
    if (parameters.back() == nullptr) return std::nullopt;
    affine.replaceable |= parameters.back()->replaceable;
  }
  for (int64_t c = 0; c < parameters[0]->elements(); ++c) {
    const double variance = parameters[3]->as_double(c);
    const double scale =
        parameters[0]->as_double(c) / std::sqrt(variance + node.attr<double>("eps"));
    affine.scale.push_back(scale);
    affine.shift.push_back(parameters[1]->as_double(c) - parameters[2]->as_double(c) * scale);
  }
  return affine;
}

Literal per_channel(DType dtype, const std::vector<double>& values, std::vector<int64_t> shape,
                    bool replaceable) {
  std::byte* data = nullptr;
  Literal result = Literal::allocate(dtype, std::move(shape), &data);
  result.replaceable = replaceable;
  for (size_t i = 0; i < values.size(); ++i) Literal::set(data, dtype, i, values[i]);
  return result;
}

Literal scaled_filters(const Literal& weight, const std::vector<double>& scale) {
  std::byte* data = nullptr;
  Literal result = Literal::allocate(weight.dtype, weight.shape, &data);
  const int64_t per_filter = weight.elements() / static_cast<int64_t>(scale.size());
  if (weight.dtype ==
      DType::F32) {  // the others go element by element, which shows on large models
    const float* from = weight.data<float>();
    float* to = reinterpret_cast<float*>(data);
    for (double factor : scale) {
      for (int64_t i = 0; i < per_filter; ++i) *to++ = static_cast<float>(*from++ * factor);
    }
    return result;
  }
  for (int64_t i = 0; i < weight.elements(); ++i) {
    Literal::set(data, weight.dtype, i, weight.as_double(i) * scale[i / per_filter]);
  }
  return result;
}

// batch_norm(convolution(x, w, b)) -> convolution(x, w * scale, b * scale + shift)
Value* into_convolution(Rewriter& rewriter, Node& node, const Affine& affine) {
  Node* convolution = producer(node.input(0), Op::convolution);
  if (convolution == nullptr || !rewriter.used_once(node.input(0))) return nullptr;
  if (convolution->attr<std::string>("layout") != "nchw") return nullptr;
  const Literal* weight = literal_of(convolution->input(1));
  const Literal* bias = literal_of(convolution->input(2));
  if (weight == nullptr || (convolution->input(2) != nullptr && bias == nullptr)) return nullptr;
  std::vector<double> shift = affine.shift;
  for (size_t c = 0; bias != nullptr && c < shift.size(); ++c) {
    shift[c] += bias->as_double(c) * affine.scale[c];
  }
  ir::Builder builder = rewriter.before(node);
  const bool replaceable =
      affine.replaceable || weight->replaceable || (bias != nullptr && bias->replaceable);
  const DType dtype = weight->dtype;
  Literal scaled = scaled_filters(*weight, affine.scale);
  weight->forget();
  scaled.replaceable = replaceable;
  Value* filters = builder.constant(std::move(scaled));
  Value* offsets = builder.constant(
      per_channel(dtype, shift, {static_cast<int64_t>(shift.size())}, replaceable));
  return builder.value(Op::convolution, {convolution->input(0), filters, offsets},
                       convolution->attrs);
}

// A value of 16 bits as f32: the sums of a convolution before they are rounded, if nothing else reads them.
Value* widened(Rewriter& rewriter, ir::Builder& builder, Value* x, bool keeps_digits) {
  const Node* convolution = producer(x, Op::convolution);
  if (convolution == nullptr || !keeps_digits || !rewriter.used_once(x))
    return builder.cast(x, DType::F32);
  ir::Attrs attrs = convolution->attrs;
  attrs["result"] = DType::F32;
  Value* sums = builder.value(Op::convolution, convolution->inputs, std::move(attrs));
  const std::string name = x->name;  // layers go by the names of their results
  builder.graph().rename(x, name + ".old");
  builder.graph().rename(sums, name);
  return sums;
}

// batch_norm(x) -> x * scale + shift, in f32 where x has 16 bits
Value* into_multiply_add(ir::Builder& builder, Value* x, const Affine& affine) {
  std::vector<int64_t> shape(x->type.rank() - 1, 1);
  shape[0] = static_cast<int64_t>(affine.scale.size());
  const auto constant = [&](const std::vector<double>& values) {
    return builder.constant(per_channel(x->type.dtype, values, shape, affine.replaceable));
  };
  Value* scale = constant(affine.scale);
  Value* shift = constant(affine.shift);
  return builder.value(Op::add, {builder.value(Op::mul, {x, scale}), shift});
}

Value* in_f32(Rewriter& rewriter, ir::Builder& builder, const Node& norm, const Affine& affine,
              bool keeps_digits) {
  Value* x = widened(rewriter, builder, norm.input(0), keeps_digits);
  return into_multiply_add(builder, x, affine);
}

// add(y, batch_norm(x)) of 16 bits, a residual: one sum in f32, which is rounded once. A shortcut with a
// batch_norm of its own is stored by its own kernel, and takes less memory in 16 bits.
Value* into_residual(Rewriter& rewriter, Node& node) {
  const DType dtype = node.output()->type.dtype;
  if (node.op != Op::add || !is_16_bit_float(dtype)) return nullptr;
  const auto norm_used_once = [&](Value* value) {
    return rewriter.used_once(value) ? producer(value, Op::batch_norm) : nullptr;
  };
  for (const size_t i : {0, 1}) {
    const Node* norm = norm_used_once(node.input(i));
    if (norm == nullptr || norm_used_once(node.input(1 - i)) != nullptr) continue;
    if (producer(norm->input(0), Op::convolution) == nullptr) continue;
    const auto affine = affine_of(*norm);
    if (!affine) continue;
    ir::Builder builder = rewriter.before(node);
    Value* normal = in_f32(rewriter, builder, *norm, *affine, true);
    Value* other = builder.cast(node.input(1 - i), DType::F32);
    return builder.cast(builder.value(Op::add, {normal, other}), dtype);
  }
  return nullptr;
}

// relu(cast(x)) -> cast(relu(x)), and the same for the minimum of a relu6: what narrows comes last, so that one
// kernel computes all of it and rounds once.
Value* limit_in_f32(Rewriter& rewriter, Node& node) {
  if (node.op != Op::relu && node.op != Op::minimum) return nullptr;
  const Node* cast = producer(node.input(0), Op::cast);
  if (cast == nullptr || !rewriter.used_once(node.input(0))) return nullptr;
  const DType dtype = node.output()->type.dtype;
  if (!is_16_bit_float(dtype) || cast->input(0)->type.dtype != DType::F32) return nullptr;
  ir::Builder builder = rewriter.before(node);
  std::vector<Value*> operands = {cast->input(0)};
  if (node.op == Op::minimum) {
    // A number of 16 bits: rounding takes nothing across it.
    const auto limit = uniform_value(node.input(1));
    if (!limit || node.input(1)->type.rank() > 0) return nullptr;
    operands.push_back(builder.scalar(DType::F32, *limit));
  }
  return builder.cast(builder.value(node.op, std::move(operands)), dtype);
}

Value* folded(Rewriter& rewriter, Node& node, bool keeps_digits) {
  if (node.op != Op::batch_norm) return nullptr;
  const auto affine = affine_of(node);
  if (!affine) return nullptr;
  const DType dtype = node.output()->type.dtype;
  if (is_16_bit_float(dtype)) {
    ir::Builder builder = rewriter.before(node);
    return builder.cast(in_f32(rewriter, builder, node, *affine, keeps_digits), dtype);
  }
  if (Value* result = into_convolution(rewriter, node, *affine)) return result;
  ir::Builder builder = rewriter.before(node);
  return into_multiply_add(builder, node.input(0), *affine);
}

}  // namespace

// batch_norm with constant parameters disappears: into the convolution before it where that has
// constant weights and no other user, otherwise into a multiplication and an addition. Scales are
// computed in f64 and rounded once. Weights of 16 bits would lose digits: there it becomes the latter,
// with f32 in between. A convolution before it and a residual after it are not rounded on their own,
// unless every operator's result is to be.
bool fold_batch_norm(ir::Graph& graph, PassContext& context) {
  const bool keeps_digits = !context.emulate_precision_casts;
  bool changed = false;
  if (keeps_digits) changed = rewrite(graph, into_residual);
  changed |= rewrite(graph, [keeps_digits](Rewriter& rewriter, Node& node) {
    return folded(rewriter, node, keeps_digits);
  });
  if (changed && keeps_digits) rewrite(graph, limit_in_f32);
  return changed;
}

}  // namespace kiln::passes
