#include <algorithm>
#include <cmath>
#include <limits>

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

bool close(double got, double expected) {
  return std::abs(got - expected) <= 1e-6 * std::abs(expected);
}

// A product as a number times values, whichever way it was bracketed; x / c counts as x * (1 / c).
struct Product {
  double scale = 1;
  std::vector<Value*> factors;
};

void collect_factors(Value* value, Product& product) {
  if (value->type.rank() == 0) {
    if (const auto number = uniform_value(value)) {
      product.scale *= *number;
      return;
    }
  }
  if (const Node* mul = producer(value, Op::mul)) {
    collect_factors(mul->input(0), product);
    collect_factors(mul->input(1), product);
    return;
  }
  if (const Node* div = producer(value, Op::div)) {
    const auto number = uniform_value(div->input(1));
    if (number && div->input(1)->type.rank() == 0) {
      collect_factors(div->input(0), product);
      product.scale /= *number;
      return;
    }
  }
  product.factors.push_back(value);
}

Product product_of(Value* value) {
  Product product;
  collect_factors(value, product);
  return product;
}

// x of x + c, if the value is that sum.
Value* minus_scalar(const Value* value, double c) {
  const Node* add = producer(value, Op::add);
  if (add == nullptr || add->input(1)->type.rank() != 0) return nullptr;
  const auto number = uniform_value(add->input(1));
  return number && close(*number, c) ? add->input(0) : nullptr;
}

bool is_power(const Product& product, const Value* x, size_t exponent) {
  return product.factors.size() == exponent &&
         std::all_of(product.factors.begin(), product.factors.end(),
                     [&](const Value* factor) { return factor == x; });
}

// value is sqrt(2/pi) * (x + 0.044715 x^3), or the same with x taken out of the bracket
bool is_tanh_argument(Value* value, const Value* x) {
  constexpr double kCubic = 0.044715;
  const Product product = product_of(value);
  if (!close(product.scale, std::sqrt(2 / M_PI))) return false;
  if (product.factors.size() == 1) {
    const Node* add = producer(product.factors[0], Op::add);
    if (add == nullptr) return false;
    for (size_t i = 0; i < 2; ++i) {
      const Product cube = product_of(add->input(i));
      if (add->input(1 - i) == x && close(cube.scale, kCubic) && is_power(cube, x, 3)) return true;
    }
    return false;
  }
  if (product.factors.size() != 2) return false;
  for (size_t i = 0; i < 2; ++i) {
    Value* square = minus_scalar(product.factors[i], 1);
    if (product.factors[1 - i] != x || square == nullptr) continue;
    const Product inner = product_of(square);
    return close(inner.scale, kCubic) && is_power(inner, x, 2);
  }
  return false;
}

// 0.5 * x * (1 + tanh(sqrt(2/pi) * (x + 0.044715 x^3))) -> gelu(x, tanh)
// 0.5 * x * (1 + erf(x / sqrt(2)))                      -> gelu(x, none)
Value* composed_gelu(Rewriter& rewriter, Node& node) {
  if (node.op != Op::mul) return nullptr;
  const Product product = product_of(node.output());
  if (product.factors.size() != 2 || !close(product.scale, 0.5)) return nullptr;
  for (size_t i = 0; i < 2; ++i) {
    Value* x = product.factors[i];
    Value* inner = minus_scalar(product.factors[1 - i], 1);
    if (inner == nullptr || x->type != node.output()->type) continue;
    std::string form;
    if (const Node* tanh = producer(inner, Op::tanh)) {
      if (is_tanh_argument(tanh->input(0), x)) form = "tanh";
    } else if (const Node* erf = producer(inner, Op::erf)) {
      const Product argument = product_of(erf->input(0));
      if (close(argument.scale, std::sqrt(0.5)) && is_power(argument, x, 1)) form = "none";
    }
    if (!form.empty()) return rewriter.before(node).value(Op::gelu, {x}, {{"approximate", form}});
  }
  return nullptr;
}

// x * sigmoid(x) -> silu(x)
Value* composed_silu(Rewriter& rewriter, Node& node) {
  if (node.op != Op::mul) return nullptr;
  for (size_t i = 0; i < 2; ++i) {
    const Node* sigmoid = producer(node.input(i), Op::sigmoid);
    if (sigmoid == nullptr || sigmoid->input(0) != node.input(1 - i)) continue;
    return rewriter.before(node).value(Op::silu, {node.input(1 - i)});
  }
  return nullptr;
}

// The number of last axes over which value is mean(x^2), kept as size 1; 0 if it is not.
int64_t mean_of_squares_axes(const Value* value, const Value* x) {
  const Node* mean = producer(value, Op::reduce_mean);
  if (mean == nullptr || !mean->attr<bool>("keepdim")) return 0;
  const Node* square = producer(mean->input(0), Op::mul);
  if (square == nullptr || square->input(0) != x || square->input(1) != x) return 0;
  const Axes& axes = mean->attr<Axes>("axes");
  const int64_t rank = static_cast<int64_t>(x->type.rank()),
                count = static_cast<int64_t>(axes.size());
  for (int64_t i = 0; i < count; ++i) {
    if (axes[i] != rank - count + i) return 0;
  }
  return count;
}

// x * rsqrt(mean(x^2) + eps) -> rms_norm(x)
Value* composed_rms_norm(Rewriter& rewriter, Node& node) {
  if (node.op != Op::mul) return nullptr;
  for (size_t i = 0; i < 2; ++i) {
    Value* x = node.input(1 - i);
    const Node* rsqrt = producer(node.input(i), Op::rsqrt);
    const Node* add = rsqrt ? producer(rsqrt->input(0), Op::add) : nullptr;
    if (add == nullptr) continue;
    const auto eps = uniform_value(add->input(1));
    const int64_t axes = mean_of_squares_axes(add->input(0), x);
    if (!eps || axes == 0 || !is_floating(x->type.dtype)) continue;
    return rewriter.before(node).value(Op::rms_norm, {x}, {{"axes", axes}, {"eps", *eps}});
  }
  return nullptr;
}

// rms_norm(x) * weight -> rms_norm(x, weight)
Value* weight_of_rms_norm(Rewriter& rewriter, Node& node) {
  if (node.op != Op::mul) return nullptr;
  for (size_t i = 0; i < 2; ++i) {
    const Node* norm = producer(node.input(i), Op::rms_norm);
    Value* weight = node.input(1 - i);
    if (norm == nullptr || norm->input(1) != nullptr || !rewriter.used_once(norm->output()))
      continue;
    const Shape& shape = norm->output()->type.shape;
    const Shape normalised(shape.end() - norm->attr<int64_t>("axes"), shape.end());
    if (weight->type.shape != normalised) continue;
    return rewriter.before(node).value(Op::rms_norm, {norm->input(0), weight}, norm->attrs);
  }
  return nullptr;
}

// What a composed attention is made of, collected from the softmax towards the product of queries
// and keys.
struct Scores {
  Value *q = nullptr, *k = nullptr, *mask = nullptr;
  Value* window_mask = nullptr;  // [1, W, 1, M, N], of scores as [B / W, W, H, M, N]
  double scale = 1;
  bool is_transposed = false;  // k is [.., D, N]
};

// The f32 value that a 16-bit one is rounded from, or null.
Value* before_rounding(const Value* value) {
  const Node* cast = producer(value, Op::cast);
  if (cast == nullptr || !is_16_bit_float(value->type.dtype)) return nullptr;
  return cast->input(0)->type.dtype == DType::F32 ? cast->input(0) : nullptr;
}

// x of x * c or x / c, with c multiplied into the scale; x itself where it is not such a product. A 16-bit
// x may have been multiplied as f32.
Value* take_scale(Value* x, double& scale) {
  if (Value* wide = before_rounding(x)) {
    double own = 1;
    Value* inner = take_scale(wide, own);
    const Node* widen = inner == wide ? nullptr : producer(inner, Op::cast);
    if (widen == nullptr || widen->input(0)->type.dtype != x->type.dtype) return x;
    scale *= own;
    return widen->input(0);
  }
  for (Op op : {Op::mul, Op::div}) {
    const Node* node = producer(x, op);
    const auto c = node ? uniform_value(node->input(1)) : std::nullopt;
    if (!c || *c == 0 || node->input(1)->type.rank() != 0) continue;
    scale *= op == Op::mul ? *c : 1 / *c;
    return node->input(0);
  }
  return x;
}

// scores + mask, or where(mask, scores, -inf); the scores, with the mask noted.
Value* take_mask(Value* x, Value*& mask) {
  if (const Node* where = producer(x, Op::where)) {
    if (uniform_value(where->input(2)) != -std::numeric_limits<double>::infinity()) return x;
    mask = where->input(0);
    return where->input(1);
  }
  const Node* add = producer(x, Op::add);
  if (add == nullptr) return x;
  double scale = 1;
  const size_t scores = producer(take_scale(add->input(1), scale), Op::matmul) ? 1 : 0;
  mask = add->input(1 - scores);
  return add->input(scores);
}

// x of reshape(reshape(x[B, H, M, N], [B / W, W, H, M, N]) + mask[1, W, 1, M, N], [B, H, M, N]), with the
// mask noted: windows of an image that are masked each in its own way. x itself if it is no such sum.
Value* take_window_mask(Value* x, Value*& mask) {
  const Node* merge = producer(x, Op::reshape);
  const Node* add = merge ? producer(merge->input(0), Op::add) : nullptr;
  if (add == nullptr || x->type.rank() != 4) return x;
  for (size_t i = 0; i < 2; ++i) {
    const Node* split = producer(add->input(i), Op::reshape);
    if (split == nullptr || split->input(0)->type.shape != x->type.shape) continue;
    const Shape &s = x->type.shape, &wide = split->output()->type.shape;
    if (wide.size() != 5 || wide != Shape{wide[0], wide[1], s[1], s[2], s[3]}) continue;
    Value* other = add->input(1 - i);
    if (other->type.shape != Shape{1, wide[1], 1, s[2], s[3]}) continue;
    if (add->output()->type.shape != wide || !is_floating(other->type.dtype)) continue;
    mask = other;
    return split->input(0);
  }
  return x;
}

// mask[1, W, 1, M, N] as [B, 1, M, N], B a multiple of W, and another mask with it.
Value* whole_mask(ir::Builder& builder, const Scores& scores, const Shape& shape) {
  if (scores.window_mask == nullptr) return scores.mask;
  const Shape& s = scores.window_mask->type.shape;
  Value* mask =
      builder.expand(scores.window_mask, {ir::floordiv(shape[0], s[1]), s[1], 1, s[3], s[4]});
  mask = builder.reshape(mask, {shape[0], 1, s[3], s[4]});
  return scores.mask == nullptr ? mask : builder.value(Op::add, {mask, scores.mask});
}

// Whether a permute does nothing but to swap the last two axes.
bool swaps_last(const Node& permute) {
  Axes axes = permute.attr<Axes>("axes");
  if (axes.size() < 2) return false;
  std::swap(axes[axes.size() - 1], axes[axes.size() - 2]);
  return is_identity(axes);
}

// x[B, H, N, D] of what was transposed to [B, H, D, N], or before leading axes were split or joined, as exporters write
// it for ONNX: reshape(permute(x[B * H, N, D], [0, 2, 1]), [B, H, D, N]). Null if it is neither.
Value* before_transpose(Rewriter& rewriter, Node& node, Value* value) {
  const Node* reshape = producer(value, Op::reshape);
  const Value* moved = reshape == nullptr ? value : reshape->input(0);
  const Node* permute = producer(moved, Op::permute);
  if (permute == nullptr || !swaps_last(*permute)) return nullptr;
  if (reshape == nullptr) return permute->input(0);
  const Shape &from = moved->type.shape, &to = value->type.shape;
  if (to.size() < 2 || from[from.size() - 1] != to[to.size() - 1] ||
      from[from.size() - 2] != to[to.size() - 2])
    return nullptr;
  Shape shape = to;
  std::swap(shape[shape.size() - 1], shape[shape.size() - 2]);
  return rewriter.before(node).reshape(permute->input(0), shape);
}

std::optional<Scores> scores_of(Value* value) {
  Scores scores;
  value = take_window_mask(value, scores.window_mask);
  Value* product = take_scale(take_mask(value, scores.mask), scores.scale);
  const Node* matmul = producer(product, Op::matmul);
  if (matmul == nullptr) return std::nullopt;
  scores.is_transposed = !matmul->attr<bool>("transpose_b");
  if (product->type.shape != value->type.shape) return std::nullopt;  // the mask broadcasts them
  const bool two_masks = scores.mask != nullptr && scores.window_mask != nullptr;
  if (two_masks && scores.mask->type.dtype != scores.window_mask->type.dtype) return std::nullopt;
  scores.q = take_scale(matmul->input(0), scores.scale);
  scores.k = take_scale(matmul->input(1), scores.scale);
  return scores;
}

// Whether the leading axes of the operands agree, so that nothing broadcasts.
bool same_batch(const Value* a, const Value* b) {
  if (a->type.rank() != b->type.rank()) return false;
  return std::equal(a->type.shape.begin(), a->type.shape.end() - 2, b->type.shape.begin());
}

// [B, M, N] -> [B, 1, M, N]; other ranks stay.
Value* with_heads(ir::Builder& builder, Value* x) {
  const Shape& s = x->type.shape;
  return s.size() == 3 ? builder.reshape(x, {s[0], 1, s[1], s[2]}) : x;
}

// The weights of an attention, and what they are in a row that is masked throughout.
struct Weights {
  enum class EmptyRow { Nan, NanToZero, Zero };
  const Node* softmax = nullptr;
  EmptyRow empty_row = EmptyRow::Nan;
};

// where(isnan(p), 0, p) of p = softmax(x).
bool replaces_nan(Rewriter& rewriter, const Node& where, const Node& softmax) {
  const Node* isnan = producer(where.input(0), Op::isnan);
  return isnan != nullptr && isnan->input(0) == softmax.output() &&
         rewriter.used_once(isnan->output()) && rewriter.graph().use_count(softmax.output()) == 2;
}

// where(max(x) == -inf, 0, p) of p = softmax(x): PyTorch's _safe_softmax.
bool replaces_empty_rows(Rewriter& rewriter, const Node& where, const Node& softmax) {
  const Node* equal = producer(where.input(0), Op::eq);
  const Node* largest = equal ? producer(equal->input(0), Op::reduce_max) : nullptr;
  return largest != nullptr && largest->input(0) == softmax.input(0) &&
         largest->attr<Axes>("axes") == Axes{softmax.attr<int64_t>("axis")} &&
         uniform_value(equal->input(1)) == -std::numeric_limits<double>::infinity() &&
         rewriter.used_once(softmax.output());
}

// softmax(x), or what replaces rows of it by 0, unless something else uses it.
std::optional<Weights> weights_of(Rewriter& rewriter, const Value* value) {
  using EmptyRow = Weights::EmptyRow;
  if (!rewriter.used_once(value)) return std::nullopt;
  if (const Node* softmax = producer(value, Op::softmax)) return Weights{softmax, EmptyRow::Nan};
  const Node* where = producer(value, Op::where);
  const Node* softmax = where ? producer(where->input(2), Op::softmax) : nullptr;
  if (softmax == nullptr || uniform_value(where->input(1)) != 0 ||
      where->output()->type != softmax->output()->type)
    return std::nullopt;
  if (replaces_nan(rewriter, *where, *softmax)) return Weights{softmax, EmptyRow::NanToZero};
  if (replaces_empty_rows(rewriter, *where, *softmax)) return Weights{softmax, EmptyRow::Zero};
  return std::nullopt;
}

// What rows are whose weights were NaN and are 0: sums of 0 * v, which are NaN where v is not finite. Other rows are NaN
// only there.
Value* without_nan_rows(ir::Builder& builder, Value* result, Value* v) {
  Value* zero = builder.scalar(v->type.dtype, 0);
  Value* sums = builder.value(Op::reduce_sum, {builder.value(Op::mul, {v, zero})},
                              {{"axes", Axes{2}}, {"keepdim", true}});
  return builder.value(Op::where, {builder.value(Op::isnan, {result}), sums, result});
}

// softmax(scale * q k^T + mask) v -> attention(q, k, v, mask), with the mask as the model has it:
// floating and added, or bool with -inf where it is false. Not where the weights have another use.
// A row that is masked throughout gives what it gave.
Value* composed_attention(Rewriter& rewriter, Node& node) {
  if (node.op != Op::matmul || node.attr<bool>("transpose_b")) return nullptr;
  const auto weights = weights_of(rewriter, node.input(0));
  if (!weights) return nullptr;
  const Node* softmax = weights->softmax;
  const size_t rank = softmax->output()->type.rank();
  if (softmax->attr<int64_t>("axis") != static_cast<int64_t>(rank) - 1) return nullptr;
  auto scores = scores_of(softmax->input(0));
  if (!scores || (rank != 3 && rank != 4)) return nullptr;
  // A product over no keys is 0, and no row of them is NaN.
  if (softmax->output()->type.shape.back().lower_bound() < 1) return nullptr;
  if (!same_batch(scores->q, scores->k) || !same_batch(scores->k, node.input(1))) return nullptr;
  if (scores->is_transposed) scores->k = before_transpose(rewriter, node, scores->k);
  if (scores->k == nullptr) return nullptr;
  ir::Builder builder = rewriter.before(node);
  std::vector<Value*> inputs = {with_heads(builder, scores->q), with_heads(builder, scores->k),
                                with_heads(builder, node.input(1))};
  if (Value* mask = whole_mask(builder, *scores, softmax->output()->type.shape)) {
    inputs.push_back(rank == 3 ? with_heads(builder, mask) : mask);
  }
  const bool nan_rows = weights->empty_row != Weights::EmptyRow::Zero;
  Value* result =
      builder.value(Op::attention, std::move(inputs),
                    {{"scale", scores->scale}, {"causal", false}, {"nan_rows", nan_rows}});
  if (weights->empty_row == Weights::EmptyRow::NanToZero)
    result = without_nan_rows(builder, result, result->producer->input(2));
  return builder.reshape(result, node.output()->type.shape);
}

// x of reshape(expand(reshape(x[B, G, N, D], [B, G, 1, N, D]), [B, G, r, N, D]), [B, G*r, N, D]),
// or null.
Value* before_repeat(Value* value) {
  const Node* merge = producer(value, Op::reshape);
  const Node* expand = merge ? producer(merge->input(0), Op::expand) : nullptr;
  const Node* split = expand ? producer(expand->input(0), Op::reshape) : nullptr;
  if (split == nullptr || split->output()->type.rank() != 5) return nullptr;
  const Shape &x = split->input(0)->type.shape, &wide = expand->output()->type.shape;
  if (x.size() != 4 || value->type.rank() != 4) return nullptr;
  if (split->output()->type.shape != Shape{x[0], x[1], 1, x[2], x[3]}) return nullptr;
  if (wide != Shape{x[0], x[1], wide[2], x[2], x[3]}) return nullptr;
  if (value->type.shape != Shape{x[0], x[1] * wide[2], x[2], x[3]}) return nullptr;
  return split->input(0);
}

// attention(q, repeat(k), repeat(v)) -> attention(q, k, v), which shares key-value heads by itself
Value* repeated_heads(Rewriter& rewriter, Node& node) {
  if (node.op != Op::attention) return nullptr;
  Value *k = before_repeat(node.input(1)), *v = before_repeat(node.input(2));
  if (k == nullptr || v == nullptr || !provably_equal(k->type.shape[1], v->type.shape[1])) {
    return nullptr;
  }
  std::vector<Value*> inputs = node.inputs;
  inputs[1] = k;
  inputs[2] = v;
  return rewriter.before(node).value(Op::attention, std::move(inputs), node.attrs);
}

}  // namespace

// Compositions that have an op of their own become it: better code, and fewer roundings. Expects a
// canonical graph (constants on the right, powers as products); the formulas are with the functions
// above. Constants must agree to 1e-6.
bool recognise_patterns(ir::Graph& graph, PassContext& context) {
  return rewrite(graph, [&](Rewriter& rewriter, Node& node) -> Value* {
    if (Value* result = repeated_heads(rewriter, node)) return result;
    const bool rounds = is_16_bit_float(node.output()->type.dtype);
    if (rounds && context.emulate_precision_casts) return nullptr;
    for (auto* rule : {composed_gelu, composed_silu, composed_rms_norm, weight_of_rms_norm,
                       composed_attention}) {
      if (Value* result = rule(rewriter, node)) return result;
    }
    return nullptr;
  });
}

}  // namespace kiln::passes
