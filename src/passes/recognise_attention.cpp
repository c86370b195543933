#include "passes/recognise_attention.h"

#include <algorithm>
#include <limits>
#include <set>

namespace kiln::passes {
namespace {

using ir::Dim;
using ir::Node;
using ir::Op;
using ir::Shape;
using ir::Value;
using Axes = std::vector<int64_t>;

constexpr double kInfinity = std::numeric_limits<double>::infinity();
// Scores that models put for -inf, -1e9 (in bf16, too) or less: nothing that is computed is near them.
constexpr double kVeryLow = -9.9e8, kLowestF16 = -65504;

// What a composed attention is made of, collected from the softmax towards the product of queries
// and keys.
struct Scores {
  Value *q = nullptr, *k = nullptr, *mask = nullptr;
  bool hides = false;            // the mask is true where there is nothing to see
  bool is_filled = false;        // with a low number: a row that sees nothing is the mean of all
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

// Whether it is -inf, or what models write in its place.
bool hides_scores(const Value* value) {
  const auto number = uniform_value(value);
  if (!number) return false;
  return *number <= kVeryLow || (value->type.dtype == DType::F16 && *number == kLowestF16);
}

// scores + mask, where(mask, scores, -inf) or where(mask, -inf, scores); the scores, with the mask noted.
Value* take_mask(Value* x, Scores& found) {
  if (const Node* where = producer(x, Op::where)) {
    for (size_t hidden : {2, 1}) {
      if (!hides_scores(where->input(hidden))) continue;
      found.mask = where->input(0);
      found.hides = hidden == 1;
      found.is_filled = uniform_value(where->input(hidden)) != -kInfinity;
      return where->input(3 - hidden);
    }
    return x;
  }
  const Node* add = producer(x, Op::add);
  if (add == nullptr) return x;
  double scale = 1;
  const size_t scores = producer(take_scale(add->input(1), scale), Op::matmul) ? 1 : 0;
  found.mask = add->input(1 - scores);
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
  Value* product = take_scale(take_mask(value, scores), scores.scale);
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
  bool is_rounded = false;  // of f32 to 16 bits
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
         uniform_value(equal->input(1)) == -kInfinity && rewriter.used_once(softmax.output());
}

// softmax(x), or what replaces rows of it by 0, or that rounded, unless something else uses it.
std::optional<Weights> weights_of(Rewriter& rewriter, const Value* value) {
  using EmptyRow = Weights::EmptyRow;
  if (!rewriter.used_once(value)) return std::nullopt;
  if (const Value* wide = before_rounding(value)) {
    auto weights = producer(wide, Op::cast) ? std::nullopt : weights_of(rewriter, wide);
    if (weights) weights->is_rounded = true;
    return weights;
  }
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

// The f32 value that a 16-bit one was widened to, as that 16-bit value; others as they are.
Value* narrowed(Value* value) {
  const Node* cast = producer(value, Op::cast);
  const bool widens = cast != nullptr && value->type.dtype == DType::F32 &&
                      is_16_bit_float(cast->input(0)->type.dtype);
  return widens ? cast->input(0) : value;
}

// The scores of weights that are computed in f32 of operands in 16 bits: rounded to 16 bits before the softmax, or
// not.
std::optional<Scores> wide_scores_of(Value* value) {
  auto scores = scores_of(narrowed(value));
  if (!scores) return std::nullopt;
  scores->q = narrowed(scores->q);
  scores->k = narrowed(scores->k);
  return scores;
}

// What a row that sees nothing is where a low number was put for all of its scores: the mean of the values.
Value* with_means(ir::Builder& builder, Value* result, Value* v, Value* keep) {
  const auto last = static_cast<int64_t>(keep->type.rank()) - 1;
  Value* sees = builder.value(Op::reduce_max, {keep}, {{"axes", Axes{last}}, {"keepdim", true}});
  Value* means = builder.value(Op::reduce_mean, {v}, {{"axes", Axes{2}}, {"keepdim", true}});
  return builder.value(Op::where, {sees, result, means});
}

bool depends_on_inputs(const Value* value) {
  std::vector<const Value*> pending{value};
  std::set<const Value*> seen;
  while (!pending.empty()) {
    const Value* next = pending.back();
    pending.pop_back();
    if (next == nullptr || !seen.insert(next).second) continue;
    if (next->producer == nullptr) return true;
    pending.insert(pending.end(), next->producer->inputs.begin(), next->producer->inputs.end());
  }
  return false;
}

// Whether attention adds the mask as the model does. Low numbers that a model adds in f16 swallow the scores, in f32
// they do not: they are what inputs say of padding, and no bias that is learned.
bool is_added_alike(const Value* mask, const Value& q) {
  if (mask == nullptr || mask->type.dtype == DType::Bool) return true;
  if (mask->type.dtype == DType::F32) return true;
  if (mask->type.dtype != q.type.dtype) return false;
  return q.type.dtype != DType::F16 || !depends_on_inputs(mask);
}

// What attention takes of the scores of softmax(scores) v, if it can.
std::optional<Scores> taken_scores(Rewriter& rewriter, Node& node, const Weights& weights) {
  Value *value = weights.softmax->input(0), *v = node.input(1);
  auto scores = weights.is_rounded ? wide_scores_of(value) : scores_of(value);
  if (!scores) return std::nullopt;
  if (!same_batch(scores->q, scores->k) || !same_batch(scores->k, v)) return std::nullopt;
  if (scores->is_transposed) {
    scores->k = before_transpose(rewriter, node, scores->k);
    if (scores->k == nullptr) return std::nullopt;
    if (weights.is_rounded) scores->k = narrowed(scores->k);
  }
  const DType dtype = v->type.dtype;
  if (scores->q->type.dtype != dtype || scores->k->type.dtype != dtype) return std::nullopt;
  if (!is_added_alike(scores->mask, *scores->q) || !is_added_alike(scores->window_mask, *scores->q))
    return std::nullopt;
  if (scores->is_filled && weights.empty_row == Weights::EmptyRow::NanToZero) return std::nullopt;
  return scores;
}

}  // namespace

// With the mask as the model has it: floating and added, or bool with -inf where it is false. Not where the weights
// have another use. A row that is masked throughout gives what it gave.
Value* composed_attention(Rewriter& rewriter, Node& node) {
  using EmptyRow = Weights::EmptyRow;
  if (node.op != Op::matmul || node.attr<bool>("transpose_b")) return nullptr;
  const auto weights = weights_of(rewriter, node.input(0));
  if (!weights) return nullptr;
  const ir::Type& type = weights->softmax->output()->type;
  const size_t rank = type.rank();
  if (weights->softmax->attr<int64_t>("axis") != static_cast<int64_t>(rank) - 1) return nullptr;
  // A product over no keys is 0, and no row of them is NaN.
  if ((rank != 3 && rank != 4) || type.shape.back().lower_bound() < 1) return nullptr;
  const auto scores = taken_scores(rewriter, node, *weights);
  if (!scores) return nullptr;
  ir::Builder builder = rewriter.before(node);
  std::vector<Value*> inputs = {with_heads(builder, scores->q), with_heads(builder, scores->k),
                                with_heads(builder, node.input(1))};
  Value* v = inputs[2];
  if (Value* mask = whole_mask(builder, *scores, type.shape)) {
    if (scores->hides) mask = builder.value(Op::logical_not, {mask});
    if (mask->type.rank() == 0) mask = builder.reshape(mask, {1});
    inputs.push_back(rank == 3 ? with_heads(builder, mask) : mask);
  }
  Value* keep = inputs.back();
  const bool nan_rows = weights->empty_row != EmptyRow::Zero && !scores->is_filled;
  Value* result =
      builder.value(Op::attention, std::move(inputs),
                    {{"scale", scores->scale}, {"causal", false}, {"nan_rows", nan_rows}});
  if (weights->empty_row == EmptyRow::NanToZero) result = without_nan_rows(builder, result, v);
  if (scores->is_filled) result = with_means(builder, result, v, keep);
  return builder.reshape(result, node.output()->type.shape);
}

namespace {

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

}  // namespace

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

}  // namespace kiln::passes
