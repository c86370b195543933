// Attention, and the rotation of its operands.
#include <cmath>
#include <limits>

#include "import/onnx/ops/attention.h"

namespace kiln::import::onnx {

Value* split_heads(NodeCall& call, Value* x, int64_t heads) {
  call.expect(heads >= 1, std::to_string(heads) + " heads", "1 or more");
  const Shape& s = x->type.shape;
  Value* split = call.builder().reshape(x, {s[0], s[1], heads, ir::floordiv(s[2], heads)});
  return call.builder().permute(split, {0, 2, 1, 3});
}

Value* merge_heads(NodeCall& call, Value* x) {
  const Shape& s = x->type.shape;
  return call.builder().reshape(call.builder().permute(x, {0, 2, 1, 3}), {s[0], s[2], s[1] * s[3]});
}

double default_scale(NodeCall& call, const Value* query) {
  const int64_t size = known_size(call, query->type.shape.back(), "the head size");
  return 1 / std::sqrt(static_cast<double>(size));
}

Value* fitted_mask(NodeCall& call, Value* mask, const Dim& keys, DType query) {
  if (mask == nullptr) return nullptr;
  call.expect(mask->type.rank() >= 1, "a mask of rank 0", "rank 1 or more");
  mask = mask_for(call.call(), mask, query);
  const Dim missing = keys - mask->type.shape.back();
  if (missing.is_constant(0) || mask->type.shape.back().is_constant(1)) return mask;
  std::vector<Dim> before(mask->type.rank(), Dim(0)), after = before;
  after.back() = missing;
  const bool is_bool = mask->type.dtype == DType::Bool;
  if (is_bool) mask = call.builder().cast(mask, DType::U8);
  mask =
      pad_with(call, mask, before, after, is_bool ? 0 : -std::numeric_limits<double>::infinity());
  return is_bool ? call.builder().cast(mask, DType::Bool) : mask;
}

Value* both(NodeCall& call, Value* mask, const Expr& kept) {
  if (mask == nullptr) return kept;
  if (mask->type.dtype == DType::Bool) return kept.apply(Op::bitwise_and, call.expr(mask));
  const Expr added = call.expr(mask);
  return kept.select(added, added.constant(-std::numeric_limits<double>::infinity()));
}

namespace {

// [batch, groups, ...] to [batch, heads, ...], each group for its heads in a row.
Value* repeat_heads(NodeCall& call, Value* x, const Dim& heads) {
  const Shape& s = x->type.shape;
  if (ir::provably_equal(s[1], heads)) return x;
  const Dim each = ir::floordiv(heads, s[1]);
  Value* split = call.builder().reshape(x, {s[0], s[1], Dim(1), s[2], s[3]});
  Value* copies = call.builder().expand(split, {s[0], s[1], each, s[2], s[3]});
  return call.builder().reshape(copies, {s[0], heads, s[2], s[3]});
}

// One more score of each query, and what remains of the weights without its own.
Value* softmax_beside(NodeCall& call, Value* scores, Value* sink) {
  const ir::Attrs last{{"axis", int64_t{3}}};
  if (sink == nullptr) return call.make(Op::softmax, {scores}, last);
  const Shape& s = scores->type.shape;
  Value* column = call.builder().reshape(call.builder().cast(sink, scores->type.dtype),
                                         {Dim(1), s[1], Dim(1), Dim(1)});
  column = call.builder().expand(column, {s[0], s[1], s[2], Dim(1)});
  Value* weights = call.make(Op::softmax, {concat(call, {scores, column}, 3)}, last);
  return slice(call.call(), weights, 3, 0, s[3]);
}

}  // namespace

ComposedAttention compose_attention(NodeCall& call, const AttentionOperands& o, int64_t wanted) {
  ir::Builder& builder = call.builder();
  const DType dtype = o.query->type.dtype, compute = compute_dtype(dtype);
  const Dim heads = o.query->type.shape[1];
  Value* key = repeat_heads(call, o.key, heads);
  Value* value = repeat_heads(call, o.value, heads);
  const Expr product =
      call.expr(call.make(Op::matmul, {builder.cast(o.query, compute), builder.cast(key, compute)},
                          {{"transpose_b", true}}));
  const Expr raw = product * o.scale;
  const Expr capped = o.softcap == 0 ? raw : (raw / o.softcap).apply(Op::tanh) * o.softcap;
  Expr masked = capped;
  if (o.mask != nullptr) {
    const Expr mask = call.expr(o.mask);
    masked = o.mask->type.dtype == DType::Bool
                 ? mask.select(capped, capped.constant(-std::numeric_limits<double>::infinity()))
                 : capped + call.expr(builder.cast(o.mask, compute));
  }
  Value* weights = softmax_beside(call, masked, o.sink);
  if (o.mask != nullptr) {  // a query that may see nothing gets nothing
    const Expr most =
        call.expr(reduce(call.call(), Op::reduce_max, o.mask, {rank_of(o.mask) - 1}, true));
    const Expr sees = o.mask->type.dtype == DType::Bool
                          ? most
                          : most.apply(Op::gt, -std::numeric_limits<double>::infinity());
    weights = sees.select(call.expr(weights), call.expr(weights).constant(0));
  }
  Value* result =
      call.make(Op::matmul, {weights, builder.cast(value, compute)}, {{"transpose_b", false}});
  Value* const modes[] = {raw, capped, masked, weights};
  return {builder.cast(result, dtype), builder.cast(modes[wanted], dtype)};
}

Value* attend(NodeCall& call, const AttentionOperands& o) {
  if (o.softcap != 0 || o.sink != nullptr) return compose_attention(call, o, 0).result;
  std::vector<Value*> operands{o.query, o.key, o.value};
  if (o.mask != nullptr) operands.push_back(o.mask);
  return call.make(Op::attention, operands, {{"scale", o.scale}, {"causal", o.causal}});
}

namespace {

// Those of rank 4 have an axis of heads.
Value* with_heads(NodeCall& call, Value* x, const char* heads_name) {
  if (x->type.rank() == 4) return x;
  call.expect(x->type.rank() == 3, "an operand of shape " + shape_text(x->type.shape),
              "rank 3 or 4");
  return split_heads(call, x, call.integer(heads_name));
}

// Which keys a query may see by its position: that of query i is i + `offset` (i64, broadcast).
Value* positional_mask(NodeCall& call, Value* mask, const AttentionOperands& o,
                       const Expr& offset) {
  const int64_t left = call.integer_or("left_window_size", -1);
  const int64_t right = call.integer_or("right_window_size", -1);
  const Dim queries = o.query->type.shape[2], keys = o.key->type.shape[2];
  const Expr row = call.expr(unsqueeze(call.call(), iota(call.call(), queries), 1)) + offset;
  const Expr key = call.expr(iota(call.call(), keys));
  const auto bound = [&](int64_t width) {
    call.expect(width < (int64_t{1} << 40), "a window of " + std::to_string(width), "less");
    return static_cast<double>(width);
  };
  if (o.causal) mask = both(call, mask, key.apply(Op::le, row));
  if (left >= 0) mask = both(call, mask, key.apply(Op::ge, row - bound(left)));
  if (right >= 0) mask = both(call, mask, key.apply(Op::le, row + bound(right)));
  return mask;
}

AttentionOperands read_operands(NodeCall& call, bool composes, std::vector<Value*>& present) {
  AttentionOperands o{with_heads(call, call.input(0), "q_num_heads"),
                      with_heads(call, call.input(1), "kv_num_heads"),
                      with_heads(call, call.input(2), "kv_num_heads")};
  call.ignore("q_num_heads");
  call.ignore("kv_num_heads");
  call.expect(!o.key->type.shape[1].is_constant(0), "keys without heads", "1 head or more");
  if (Value* past = call.optional_input(4)) {
    for (const Value* each : {past, call.input(5)})
      call.expect(each->type.rank() == 4, "a past of shape " + shape_text(each->type.shape),
                  "rank 4");
    o.past = past->type.shape[2];
    o.key = concat(call, {past, o.key}, 2);
    o.value = concat(call, {call.input(5), o.value}, 2);
  }
  present = {o.key, o.value};
  const Dim keys = o.key->type.shape[2];
  o.scale = call.has("scale") ? call.real_or("scale", 1) : default_scale(call, o.query);
  o.mask = fitted_mask(call, call.optional_input(3), keys, o.query->type.dtype);
  o.causal = call.flag_or("is_causal", false);
  Value* offset = call.make(Op::dim_value, {}, {{"value", o.past}, {"dtype", DType::I64}});
  Expr keys_before = call.expr(offset);
  if (Value* lengths = call.optional_input(6)) {
    call.expect(lengths->type.rank() == 1, "lengths of shape " + shape_text(lengths->type.shape),
                "rank 1");
    const Expr column = call.expr(call.builder().reshape(call.builder().cast(lengths, DType::I64),
                                                         {o.query->type.shape[0], 1, 1, 1}));
    Value* queries =
        call.make(Op::dim_value, {}, {{"value", o.query->type.shape[2]}, {"dtype", DType::I64}});
    if (o.past.is_constant(0)) keys_before = column - call.expr(queries);
    o.mask = both(call, o.mask, call.expr(iota(call.call(), keys)).apply(Op::lt, column));
  }
  const bool windows =
      call.integer_or("left_window_size", -1) >= 0 || call.integer_or("right_window_size", -1) >= 0;
  const bool plain = o.mask == nullptr && o.past.is_constant(0) && !composes && !windows;
  if (plain) return o;
  o.mask = positional_mask(call, o.mask, o, keys_before);
  o.causal = false;
  return o;
}

std::vector<Value*> import_attention(NodeCall& call) {
  std::vector<Value*> present;
  const double softcap = call.real_or("softcap", 0);
  const bool composes = softcap != 0 || call.output_used(3);
  AttentionOperands o = read_operands(call, composes, present);
  o.softcap = softcap;
  const int64_t wanted = call.integer_or("qk_matmul_output_mode", 0);
  call.expect(wanted >= 0 && wanted <= 3, "qk_matmul_output_mode " + std::to_string(wanted),
              "0 to 3");
  call.ignore("softmax_precision");  // f32 at least
  const ComposedAttention composed =
      composes ? compose_attention(call, o, wanted) : ComposedAttention{attend(call, o), nullptr};
  Value* y = composed.result;
  if (call.input(0)->type.rank() == 3) y = merge_heads(call, y);
  return {y, present[0], present[1], composed.scores};
}

// Pairs of elements turned by angles: neighbours if interleaved, else the two halves.
Expr rotate(NodeCall& call, Value* x, const Expr& cosine, const Expr& sine, bool interleaved) {
  const Shape& s = x->type.shape;
  const Dim half = ir::floordiv(s[3], 2);
  const auto part = [&](int64_t i) {
    return call.expr(interleaved ? strided(call, x, 3, i, half, 2)
                                 : slice(call.call(), x, 3, half * i, half));
  };
  const Expr first = part(0), second = part(1);
  const Expr real = first * cosine - second * sine, imaginary = first * sine + second * cosine;
  if (!interleaved) return call.expr(concat(call, {real, imaginary}, 3));
  Value* pairs =
      concat(call, {unsqueeze(call.call(), real, 4), unsqueeze(call.call(), imaginary, 4)}, 4);
  return call.expr(call.builder().reshape(pairs, s));
}

}  // namespace

Value* rotate_heads(NodeCall& call, Value* x, Value* cosine, Value* sine, bool interleaved) {
  call.expect(cosine->type.rank() == 3 && sine->type.rank() == 3,
              "angles of rank " + std::to_string(cosine->type.rank()), "rank 3");
  const Dim size = x->type.shape[3], turned = cosine->type.shape[2] * 2;
  const auto angle = [&](Value* table) { return call.expr(unsqueeze(call.call(), table, 2)); };
  Value* head = slice(call.call(), x, 3, 0, turned);
  Value* result = rotate(call, head, angle(cosine), angle(sine), interleaved);
  if (ir::provably_equal(turned, size)) return result;
  return concat(call, {result, slice(call.call(), x, 3, turned, size - turned)}, 3);
}

namespace {

Value* import_rotary_embedding(NodeCall& call) {
  Value* input = call.input(0);
  ir::Builder& builder = call.builder();
  const bool is_rank_3 = input->type.rank() == 3;
  const int64_t width = call.integer_or("rotary_embedding_dim", 0);
  const bool interleaved = call.flag_or("interleaved", false);
  // [batch, length, heads, size]
  Value* x = builder.permute(with_heads(call, input, "num_heads"), {0, 2, 1, 3});
  call.ignore("num_heads");
  Value *cosine = call.input(1), *sine = call.input(2);
  if (Value* positions = call.optional_input(3)) {
    cosine = rows_at(call, cosine, positions);
    sine = rows_at(call, sine, positions);
  }
  call.expect(cosine->type.rank() == 3 && sine->type.rank() == 3,
              "caches of rank " + std::to_string(cosine->type.rank()), "rank 3, or position_ids");
  const Dim half = ir::floordiv(width == 0 ? x->type.shape[3] : Dim(width), 2);
  const auto angle = [&](Value* cache) { return slice(call.call(), cache, 2, 0, half); };
  Value* result = rotate_heads(call, x, angle(cosine), angle(sine), interleaved);
  if (is_rank_3) return builder.reshape(result, input->type.shape);
  return builder.permute(result, {0, 2, 1, 3});
}

constexpr OperatorRow kRows[] = {
    {"Attention", import_attention},
    {"RotaryEmbedding", import_rotary_embedding},
};

}  // namespace

OperatorRows attention_operators() { return kRows; }

}  // namespace kiln::import::onnx
