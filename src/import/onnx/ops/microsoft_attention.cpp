// Attention of the domain com.microsoft: with biases and caches, of groups, and the rotation of its operands.
#include "import/onnx/ops/attention.h"

#include "import/size_condition.h"

namespace kiln::import::onnx {
namespace {

Expr size_value(NodeCall& call, const Dim& size) {
  return call.expr(call.make(Op::dim_value, {}, {{"value", size}, {"dtype", DType::I64}}));
}

// Integers as i64 of a shape that broadcasts.
Expr integers_as(NodeCall& call, Value* x, const Shape& shape) {
  call.expect(is_integer(x->type.dtype) || x->type.dtype == DType::Bool, x->type.str(), "integers");
  return call.expr(call.builder().reshape(call.builder().cast(x, DType::I64), shape));
}

// The slice `index` of a last axis but one of several, which goes: [.., each, size] to [.., size].
Value* part_of(NodeCall& call, Value* packed, int64_t index) {
  Shape shape = packed->type.shape;
  Value* part = slice(call.call(), packed, 3, index, 1);
  shape.erase(shape.begin() + 3);
  return call.builder().reshape(part, shape);
}

// Keys and values of earlier calls, or none.
struct Past {
  Value *key, *value;
};

double read_scale(NodeCall& call, const Value* query) {
  const double scale = call.real_or("scale", 0);
  return scale == 0 ? default_scale(call, query) : scale;
}

void expect_rank(NodeCall& call, const Value* x, size_t rank, const char* what) {
  call.expect(x->type.rank() == rank, std::string(what) + " of shape " + shape_text(x->type.shape),
              "rank " + std::to_string(rank));
}

Past read_past(NodeCall& call, size_t key) {
  const Past past{call.optional_input(key), call.optional_input(key + 1)};
  call.expect((past.key == nullptr) == (past.value == nullptr), "one of past_key and past_value",
              "both or none");
  if (past.key == nullptr) return past;
  for (const Value* each : {past.key, past.value}) expect_rank(call, each, 4, "a past");
  const Dim keys = past.key->type.shape[2], values = past.value->type.shape[2];
  call.builder().require({is_equal(keys, values), "as many past keys as values",
                          call.node().op_type, ir::Requirement::Kind::Sizes});
  return past;
}

// --- MultiHeadAttention ---

// A part of the bias of all projections, as [1, heads, 1, size], added to an operand that has heads.
Value* with_bias(NodeCall& call, Value* x, Value* bias, const Dim& start) {
  if (bias == nullptr) return x;
  const Dim &heads = x->type.shape[1], &size = x->type.shape[3];
  Value* own = slice(call.call(), bias, 0, start, heads * size);
  return call.expr(x) + call.expr(call.builder().reshape(own, {Dim(1), heads, Dim(1), size}));
}

// [batch, length, heads, several, size]: operand `index` as [batch, heads, length, size].
Value* unpacked_operand(NodeCall& call, Value* packed, int64_t several, int64_t index) {
  call.expect(packed->type.shape[3].is_constant(several),
              "packed operands of shape " + shape_text(packed->type.shape),
              "[batch, length, heads, " + std::to_string(several) + ", size]");
  return call.builder().permute(part_of(call, packed, index), {0, 2, 1, 3});
}

// The three operands as [batch, heads, length, size], with their biases.
AttentionOperands read_multi_head(NodeCall& call) {
  const int64_t heads = call.integer("num_heads");
  Value *query = call.input(0), *bias = call.optional_input(3);
  Value *key = call.optional_input(1), *value = call.optional_input(2);
  if (bias != nullptr) expect_rank(call, bias, 1, "a bias");
  AttentionOperands o{};
  bool projected = true;  // the bias is also that of keys and values
  if (query->type.rank() == 5) {
    call.expect(key == nullptr && value == nullptr, "a packed query, and a key or a value",
                "one of the two");
    o.query = unpacked_operand(call, query, 3, 0);
    o.key = unpacked_operand(call, query, 3, 1);
    o.value = unpacked_operand(call, query, 3, 2);
  } else {
    expect_rank(call, query, 3, "a query");
    call.expect(key != nullptr, "a query of rank 3 without a key", "a key");
    o.query = split_heads(call, query, heads);
    if (key->type.rank() == 5) {
      call.expect(value == nullptr, "a packed key, and a value", "one of the two");
      o.key = unpacked_operand(call, key, 2, 0);
      o.value = unpacked_operand(call, key, 2, 1);
    } else {
      call.expect(value != nullptr && key->type.rank() == value->type.rank(),
                  "a key without a value of its rank", "both");
      const bool has_heads = key->type.rank() == 4;
      if (!has_heads) expect_rank(call, key, 3, "a key");
      if (has_heads) projected = false;
      o.key = has_heads ? key : split_heads(call, key, heads);
      o.value = has_heads ? value : split_heads(call, value, heads);
    }
  }
  call.expect(o.query->type.shape[1].is_constant(heads) && o.key->type.shape[1].is_constant(heads),
              "operands of other than " + std::to_string(heads) + " heads", "num_heads");
  const Dim width = o.query->type.shape[3] * heads;
  o.query = with_bias(call, o.query, bias, 0);
  if (!projected) return o;
  o.key = with_bias(call, o.key, bias, width);
  o.value = with_bias(call, o.value, bias, width * 2);
  return o;
}

// x with as many elements along an axis as there are keys: where types do not say that, each run is asked.
Value* along_keys(NodeCall& call, Value* x, const Dim& keys, const char* what) {
  const Dim size = x->type.shape.back();
  if (ir::provably_equal(size, keys)) return x;
  call.builder().require({is_equal(size, keys), std::string(what) + " for " + keys.str() + " keys",
                          call.node().op_type, ir::Requirement::Kind::Sizes});
  std::vector<Dim> none(x->type.rank(), Dim(0)), after = none;
  after.back() = keys - size;
  return pad_with(call, x, none, after, 0);
}

// Which keys are no padding: bool[batch, 1, queries or 1, keys]. Of rank 1 the mask has the number of keys of each
// sequence, or, with `starts`, also where each begins.
Value* unpadded(NodeCall& call, Value* mask, const AttentionOperands& o, bool starts) {
  const Dim &batch = o.query->type.shape[0], &queries = o.query->type.shape[2],
            &keys = o.key->type.shape[2];
  const size_t rank = mask->type.rank();
  const bool is_pair = rank == 1 && starts && ir::provably_equal(mask->type.shape[0], batch * 2);
  call.expect(rank >= 1 && rank <= 3 &&
                  (is_pair || ir::provably_equal(mask->type.shape[0], batch)) &&
                  (rank < 3 || ir::provably_equal(mask->type.shape[1], queries)),
              "a mask of shape " + shape_text(mask->type.shape),
              "[batch], " + std::string(starts ? "[2 batch], " : "") +
                  "[batch, keys] or [batch, queries, keys]");
  if (rank > 1) {
    Value* whole = along_keys(call, mask, keys, "a mask");
    return integers_as(call, whole, {batch, 1, rank == 3 ? queries : Dim(1), keys})
        .apply(Op::gt, 0);
  }
  const Expr key = call.expr(iota(call.call(), keys));
  const auto bound = [&](const Dim& start) {
    return integers_as(call, slice(call.call(), mask, 0, start, batch), {batch, 1, 1, 1});
  };
  const Expr before_end = key.apply(Op::lt, bound(0));
  return is_pair ? before_end.apply(Op::bitwise_and, key.apply(Op::ge, bound(batch))) : before_end;
}

// What is added to the scores: a number for padding, and a bias; null: nothing.
Value* score_bias(NodeCall& call, const AttentionOperands& o, Value* unpadded, Value* bias) {
  const double filter = call.real_or("mask_filter_value", -10000);
  if (bias != nullptr) expect_rank(call, bias, 4, "an attention_bias");
  const DType query = o.query->type.dtype;
  if (bias != nullptr) {
    bias = along_keys(call, bias, o.key->type.shape[2], "an attention_bias");
    bias = mask_for(call.call(), bias, query);
  }
  if (unpadded == nullptr) return bias;
  const DType dtype = bias == nullptr ? query : bias->type.dtype;
  const Expr added = call.expr(call.builder().scalar(dtype, filter));
  const Expr masked = call.expr(unpadded).select(added.constant(0), added);
  return bias == nullptr ? masked : masked + call.expr(bias);
}

// A query sees keys up to its own, and the last one all of them.
Value* unidirectional_mask(NodeCall& call, Value* mask, const AttentionOperands& o) {
  const Dim &queries = o.query->type.shape[2], &keys = o.key->type.shape[2];
  const Expr row = call.expr(unsqueeze(call.call(), iota(call.call(), queries), 1));
  const Expr key = call.expr(iota(call.call(), keys));
  Expr kept = key.apply(Op::le, row + size_value(call, o.past));
  if (!ir::provably_equal(keys, queries + o.past))
    kept = kept.apply(Op::bitwise_or, row.apply(Op::eq, size_value(call, queries - 1)));
  return both(call, mask, kept);
}

Value* attend_heads(NodeCall& call, AttentionOperands& o) {
  const Dim &queries = o.query->type.shape[2], &keys = o.key->type.shape[2];
  if (call.flag_or("unidirectional", false) && !queries.is_constant(1)) {
    o.causal = o.mask == nullptr && o.past.is_constant(0) && ir::provably_equal(keys, queries);
    if (!o.causal) o.mask = unidirectional_mask(call, o.mask, o);
  }
  return merge_heads(call, attend(call, o));
}

std::vector<Value*> import_multi_head_attention(NodeCall& call) {
  AttentionOperands o = read_multi_head(call);
  o.scale = read_scale(call, o.query);
  const Past past = read_past(call, 6);
  call.expect(!call.has_input(8) && !call.has_input(9), "past_sequence_length or cache_indirection",
              "caches that grow");
  if (past.key != nullptr) {
    o.past = past.key->type.shape[2];
    o.key = concat(call, {past.key, o.key}, 2);
    o.value = concat(call, {past.value, o.value}, 2);
  }
  Value* mask = call.optional_input(4);
  if (mask != nullptr) mask = unpadded(call, mask, o, false);
  o.mask = score_bias(call, o, mask, call.optional_input(5));
  return {attend_heads(call, o), o.key, o.value};
}

// --- Attention, with the projections in front of it ---

// Its operands as [batch, heads, length, size].
AttentionOperands read_projected(NodeCall& call) {
  const int64_t heads = call.integer("num_heads");
  Value *x = call.input(0), *weights = call.input(1), *bias = call.optional_input(2);
  expect_rank(call, x, 3, "an input");
  expect_rank(call, weights, 2, "weights");
  const int64_t all = known_size(call, weights->type.shape[1], "the width of the weights");
  const std::vector<int64_t> widths =
      call.integers_or("qkv_hidden_sizes", std::vector<int64_t>(3, all / 3));
  call.expect(
      widths.size() == 3 && widths[0] + widths[1] + widths[2] == all && widths[0] == widths[1] &&
          heads >= 1 && widths[0] % heads == 0 && widths[2] % heads == 0,
      "weights of width " + std::to_string(all) + " for " + std::to_string(heads) + " heads",
      "three widths of multiples of it, the first two equal");
  Value* rows = call.make(Op::matmul, {x, weights}, {{"transpose_b", false}});
  if (bias != nullptr) rows = call.expr(rows) + call.expr(bias);
  const auto part = [&](int64_t start, int64_t width) {
    return split_heads(call, slice(call.call(), rows, 2, start, width), heads);
  };
  return {part(0, widths[0]), part(widths[0], widths[1]), part(2 * widths[0], widths[2])};
}

std::vector<Value*> import_projected_attention(NodeCall& call) {
  AttentionOperands o = read_projected(call);
  o.scale = read_scale(call, o.query);
  call.expect(!call.flag_or("do_rotary", false), "do_rotary", "0");
  call.ignore("rotary_embedding_dim");
  call.expect(!call.flag_or("past_present_share_buffer", false) && !call.has_input(6),
              "past_present_share_buffer", "caches that grow");
  if (Value* past = call.optional_input(4)) {
    call.expect(past->type.rank() == 5 && past->type.shape[0].is_constant(2),
                "a past of shape " + shape_text(past->type.shape),
                "[2, batch, heads, length, size]");
    const Shape shape(past->type.shape.begin() + 1, past->type.shape.end());
    const auto half = [&](int64_t i) {
      return call.builder().reshape(slice(call.call(), past, 0, i, 1), shape);
    };
    o.past = shape[2];
    o.key = concat(call, {half(0), o.key}, 2);
    o.value = concat(call, {half(1), o.value}, 2);
  }
  Value* present = nullptr;
  if (call.output_used(1))
    present =
        concat(call, {unsqueeze(call.call(), o.key, 0), unsqueeze(call.call(), o.value, 0)}, 0);
  Value* mask = call.optional_input(3);
  if (mask != nullptr) mask = unpadded(call, mask, o, true);
  o.mask = score_bias(call, o, mask, call.optional_input(5));
  return {attend_heads(call, o), present};
}

// --- GroupQueryAttention ---

struct Groups {
  int64_t heads, kv_heads;
};

Groups read_groups(NodeCall& call) {
  const Groups groups{call.integer("num_heads"), call.integer("kv_num_heads")};
  call.expect(
      groups.kv_heads >= 1 && groups.heads >= 1 && groups.heads % groups.kv_heads == 0,
      std::to_string(groups.heads) + " heads, and " + std::to_string(groups.kv_heads) + " of keys",
      "a multiple of it");
  call.expect(!call.flag_or("sliding_window_cache", false), "sliding_window_cache",
              "caches of the whole length");
  for (const char* name : {"k_quant_type", "v_quant_type"})
    call.expect(call.text_or(name, "NONE") == "NONE", name, "caches that are not quantised");
  call.ignore("kv_cache_bit_width");
  call.expect(!call.has_input(12) && !call.has_input(13), "k_scale or v_scale",
              "caches that are not quantised");
  call.expect(call.integer_or("qk_output", 0) == 0, "qk_output", "0");
  return groups;
}

AttentionOperands read_grouped(NodeCall& call, const Groups& groups) {
  Value *query = call.input(0), *key = call.optional_input(1), *value = call.optional_input(2);
  expect_rank(call, query, 3, "a query");
  call.expect((key == nullptr) == (value == nullptr), "one of key and value", "both or none");
  if (key == nullptr) {
    const int64_t all = groups.heads + 2 * groups.kv_heads;
    const Dim size = ir::floordiv(query->type.shape[2], all), own = size * groups.heads,
              shared = size * groups.kv_heads;
    key = slice(call.call(), query, 2, own, shared);
    value = slice(call.call(), query, 2, own + shared, shared);
    query = slice(call.call(), query, 2, 0, own);
  }
  expect_rank(call, key, 3, "a key");
  expect_rank(call, value, 3, "a value");
  call.expect(ir::provably_equal(query->type.shape[1], key->type.shape[1]) &&
                  ir::provably_equal(query->type.shape[1], value->type.shape[1]),
              "a query of length " + query->type.shape[1].str() + " and a key of length " +
                  key->type.shape[1].str(),
              "equal ones");
  return {split_heads(call, query, groups.heads), split_heads(call, key, groups.kv_heads),
          split_heads(call, value, groups.kv_heads)};
}

// Each head of queries and keys, normalised.
void normalise(NodeCall& call, AttentionOperands& o) {
  const double both = call.real_or("qk_norm_epsilon", 1e-6F);
  const auto apply = [&](Value*& x, size_t weight, const char* epsilon) {
    const ir::Attrs attrs{{"axes", int64_t{1}}, {"eps", call.real_or(epsilon, both)}};
    if (Value* w = call.optional_input(weight)) x = call.make(Op::rms_norm, {x, w}, attrs);
  };
  apply(o.query, 14, "q_norm_epsilon");
  apply(o.key, 15, "k_norm_epsilon");
}

// Where the rows of a call are in the sequences: counts of each, [batch, 1], and positions, [batch, length].
struct Places {
  Expr total, past, positions;
  Value* valid = nullptr;  // bool[batch, length]: rows that are no padding; null: all
};

Places read_places(NodeCall& call, const Shape& query) {
  const Dim &batch = query[0], &length = query[2];
  const Expr total = integers_as(call, call.input(5), {batch, 1}) + 1;
  const Expr row = call.expr(iota(call.call(), length));
  if (Value* lengths = call.optional_input(16)) {
    const Expr own = integers_as(call, lengths, {batch, 1}), past = total - own;
    return {total, past, past + row, row.apply(Op::lt, own)};
  }
  const Expr past = (total - size_value(call, length)).apply(Op::maximum, 0);
  return {total, past, past + row, nullptr};
}

// Given positions count from the first of all where the sequences begin with this call.
Value* rotary_positions(NodeCall& call, Value* given, const Places& places, const Dim& length) {
  if (given == nullptr && places.valid == nullptr) return places.positions;
  if (given == nullptr)
    return call.expr(places.valid).select(places.positions, places.positions.constant(0));
  expect_rank(call, given, 2, "position_ids");
  if (places.valid != nullptr) return given;
  const Expr here = call.expr(given);
  Value* first = slice(call.call(), slice(call.call(), given, 0, 0, 1), 1, 0, 1);
  const Expr begins = integers_as(call, call.input(6), {}).apply(Op::eq, size_value(call, length));
  return begins.select(call.expr(iota(call.call(), length)) + call.expr(first), here);
}

void rotate_operands(NodeCall& call, AttentionOperands& o, const Places& places) {
  Value *cosine = call.optional_input(7), *sine = call.optional_input(8);
  Value* positions = call.optional_input(9);
  const bool interleaved = call.flag_or("rotary_interleaved", false);
  if (!call.flag_or("do_rotary", false)) return;
  call.expect(cosine != nullptr && sine != nullptr, "do_rotary without cos_cache and sin_cache",
              "both");
  positions = rotary_positions(call, positions, places, o.query->type.shape[2]);
  cosine = rows_at(call, cosine, positions);
  sine = rows_at(call, sine, positions);
  for (Value** x : {&o.query, &o.key}) {
    Value* rows = call.builder().permute(*x, {0, 2, 1, 3});
    *x = call.builder().permute(rotate_heads(call, rows, cosine, sine, interleaved), {0, 2, 1, 3});
  }
}

// How long the caches are afterwards: as before, or as the longest sequence; and how far they are read, at least as
// far as that.
struct Lengths {
  Dim present, read;
};

Lengths read_lengths(NodeCall& call, const Dim& past) {
  Value* most = call.input(6);
  call.expect(most->type.elements().is_constant(1) && is_integer(most->type.dtype),
              "total_sequence_length of " + most->type.str(), "one integer");
  if (const Elements* known = call.known(most)) {
    const Dim longest = known->integers[0], present = ir::max(longest, past);
    const bool is_part =
        ir::provably_less_equal(0, longest) && ir::provably_less_equal(longest, present);
    return {present, is_part ? longest : present};
  }
  const Expr longest = integers_as(call, most, {});
  const Dim present =
      call.call().find_size(longest.apply(Op::maximum, size_value(call, past)), 1, 2, std::nullopt);
  return {present, present};
}

// A cache with the new rows at their places.
Value* with_rows(NodeCall& call, Value* cache, Value* rows, const Dim& length,
                 const Places& places) {
  Shape shape = rows->type.shape;
  const Dim batch = shape[0], count = shape[2];
  shape[2] = length;
  if (cache == nullptr) {
    cache = full(call, shape, rows->type.dtype, 0);
  } else if (!ir::provably_equal(cache->type.shape[2], length)) {
    cache = pad_with(call, cache, std::vector<Dim>(4, Dim(0)),
                     {0, 0, length - cache->type.shape[2], 0}, 0);
  }
  Expr index = places.positions;
  if (places.valid != nullptr)
    index = call.expr(places.valid).select(index, index.constant(-1));  // written nowhere
  Value* at = call.builder().reshape(index, {batch, Dim(1), count, Dim(1)});
  return call.make(Op::scatter, {cache, at, rows},
                   {{"axis", int64_t{2}}, {"combine", std::string("replace")}});
}

// Which keys each query sees: [batch, 1, queries, keys].
Value* grouped_mask(NodeCall& call, const AttentionOperands& o, const Places& places,
                    int64_t window) {
  const Dim &batch = o.query->type.shape[0], &queries = o.query->type.shape[2];
  const Expr key = call.expr(iota(call.call(), o.key->type.shape[2]));
  const auto column = [&](const Expr& x, const Dim& size) {
    return call.expr(call.builder().reshape(x, {batch, Dim(1), size, Dim(1)}));
  };
  if (!o.causal) return key.apply(Op::lt, column(places.total, 1));
  const Expr own = column(places.positions, queries);
  const Expr kept = key.apply(Op::le, own);
  if (window < 0) return kept;
  return kept.apply(Op::bitwise_and, key.apply(Op::gt, own - static_cast<double>(window)));
}

std::vector<Value*> import_group_query_attention(NodeCall& call) {
  const Groups groups = read_groups(call);
  AttentionOperands o = read_grouped(call, groups);
  normalise(call, o);
  const Places places = read_places(call, o.query->type.shape);
  rotate_operands(call, o, places);
  const Past past = read_past(call, 3);
  const Lengths lengths =
      read_lengths(call, past.key == nullptr ? Dim(0) : past.key->type.shape[2]);
  Value* const keys = with_rows(call, past.key, o.key, lengths.present, places);
  Value* const values = with_rows(call, past.value, o.value, lengths.present, places);
  o.key = slice(call.call(), keys, 2, 0, lengths.read);
  o.value = slice(call.call(), values, 2, 0, lengths.read);

  o.scale = read_scale(call, o.query);
  o.softcap = call.real_or("softcap", 0);
  o.causal = call.flag_or("causal", true);
  o.sink = call.optional_input(11);
  if (call.integer_or("smooth_softmax", 0) == 1 && o.sink == nullptr)
    o.sink = full(call, {groups.heads}, o.query->type.dtype, 0);
  const int64_t window = call.integer_or("local_window_size", -1);
  call.expect(window == -1 || (window >= 1 && o.causal),
              "local_window_size " + std::to_string(window), "-1, or 1 or more and causal = 1");
  Value* bias = call.optional_input(10);
  // All sequences begin with this call: a query's place is its row.
  const bool begins = past.key == nullptr && places.valid == nullptr &&
                      ir::provably_equal(lengths.read, o.query->type.shape[2]);
  const bool plain =
      begins && bias == nullptr && window < 0 && o.causal && o.softcap == 0 && o.sink == nullptr;
  if (!plain) {
    bias = fitted_mask(call, bias, lengths.read, o.query->type.dtype);
    o.mask = both(call, bias, call.expr(grouped_mask(call, o, places, window)));
    o.causal = false;
  }
  Value* result = merge_heads(call, attend(call, o));
  return {result, keys, values};
}

// --- RotaryEmbedding ---

Value* import_rotary_embedding(NodeCall& call) {
  Value *input = call.input(0), *positions = call.input(1);
  Value *cosine = call.input(2), *sine = call.input(3);
  call.expect(!call.flag_or("is_packed_batching", false), "is_packed_batching", "0");
  call.expect(call.real_or("scale", 1) == 1, "a scale", "1");
  const int64_t width = call.integer_or("rotary_embedding_dim", 0);
  const int64_t heads = call.integer_or("num_heads", 0);
  const bool interleaved = call.flag_or("interleaved", false);
  expect_rank(call, cosine, 2, "a table");
  const bool has_heads = input->type.rank() == 4;
  if (!has_heads) expect_rank(call, input, 3, "an input");
  call.expect(width == 0 || heads > 0 || has_heads, "rotary_embedding_dim without num_heads",
              "both");
  ir::Builder& builder = call.builder();
  Value* x = input;  // [batch, length, heads, size]
  if (has_heads) {
    x = builder.permute(x, {0, 2, 1, 3});
  } else {
    const Shape& s = input->type.shape;
    const Dim size = heads > 0 ? ir::floordiv(s[2], heads) : cosine->type.shape[1] * 2;
    x = builder.reshape(x, {s[0], s[1], ir::floordiv(s[2], size), size});
  }
  const Dim &batch = x->type.shape[0], &length = x->type.shape[1];
  if (positions->type.rank() != 1) expect_rank(call, positions, 2, "position_ids");
  if (positions->type.rank() == 1) {  // of the first row, in every sequence
    const Expr row = call.expr(iota(call.call(), length)) + integers_as(call, positions, {1});
    positions = builder.expand(builder.reshape(row, {1, length}), {batch, length});
  }
  const auto angles = [&](Value* table) {
    Value* rows = rows_at(call, table, positions);
    return width == 0 ? rows : slice(call.call(), rows, 2, 0, width / 2);
  };
  Value* result = rotate_heads(call, x, angles(cosine), angles(sine), interleaved);
  return has_heads ? builder.permute(result, {0, 2, 1, 3})
                   : builder.reshape(result, input->type.shape);
}

constexpr OperatorRow kRows[] = {
    {"com.microsoft.Attention", import_projected_attention},
    {"com.microsoft.GroupQueryAttention", import_group_query_attention},
    {"com.microsoft.MultiHeadAttention", import_multi_head_attention},
    {"com.microsoft.RotaryEmbedding", import_rotary_embedding},
};

}  // namespace

OperatorRows microsoft_attention_operators() { return kRows; }

}  // namespace kiln::import::onnx
