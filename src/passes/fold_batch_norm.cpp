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

// batch_norm(x) -> x * scale + shift, in f32 where x has 16 bits
Value* into_multiply_add(Rewriter& rewriter, Node& node, const Affine& affine) {
  std::vector<int64_t> shape(node.output()->type.rank() - 1, 1);
  shape[0] = static_cast<int64_t>(affine.scale.size());
  ir::Builder builder = rewriter.before(node);
  const DType dtype = node.output()->type.dtype;
  const bool widens = is_16_bit_float(dtype);
  const auto constant = [&](const std::vector<double>& values) {
    return builder.constant(
        per_channel(widens ? DType::F32 : dtype, values, shape, affine.replaceable));
  };
  Value* x = widens ? builder.cast(node.input(0), DType::F32) : node.input(0);
  Value* scale = constant(affine.scale);
  Value* shift = constant(affine.shift);
  Value* result = builder.value(Op::add, {builder.value(Op::mul, {x, scale}), shift});
  return widens ? builder.cast(result, dtype) : result;
}

}  // namespace

// batch_norm with constant parameters disappears: into the convolution before it where that has
// constant weights and no other user, otherwise into a multiplication and an addition. Scales are
// computed in f64 and rounded once. Weights of 16 bits would lose digits: there it becomes the latter,
// with f32 in between, which rounds as often as batch_norm does.
bool fold_batch_norm(ir::Graph& graph, PassContext&) {
  return rewrite(graph, [](Rewriter& rewriter, Node& node) -> Value* {
    if (node.op != Op::batch_norm) return nullptr;
    const auto affine = affine_of(node);
    if (!affine) return nullptr;
    if (!is_16_bit_float(node.output()->type.dtype)) {
      if (Value* result = into_convolution(rewriter, node, *affine)) return result;
    }
    return into_multiply_add(rewriter, node, *affine);
  });
}

}  // namespace kiln::passes
