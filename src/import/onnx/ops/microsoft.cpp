// Operators of the domain com.microsoft, which ONNX Runtime's tools write: weights of few bits, and
// what its optimiser makes of several operators.
#include <cmath>

#include "import/onnx/ops/common.h"

namespace kiln::import::onnx {
namespace {

// Numbers of `bits` bits in bytes, the first one lowest, one a byte: rows of `count`, each of which begins
// with a byte of its own.
Value* unpacked(NodeCall& call, const Value* value, int64_t bits, int64_t rows, int64_t count,
                const std::string& what) {
  const ir::Node* node = value->producer;
  call.expect(node != nullptr && node->op == Op::constant && value->type.dtype == DType::U8,
              what + " of " + value->type.str() + (node == nullptr ? ", an input" : ""),
              "a constant of u8");
  const auto& packed = node->attr<ir::Literal>("value");
  const int64_t each = 8 / bits, row_bytes = (count + each - 1) / each;
  call.expect(packed.elements() == rows * row_bytes,
              what + " of shape " + shape_text(value->type.shape),
              std::to_string(rows) + " x " + std::to_string(row_bytes) + " bytes");
  std::byte* data = nullptr;
  ir::Literal literal = ir::Literal::allocate(DType::U8, {rows, count}, &data);
  const auto* from = packed.data<uint8_t>();
  auto* to = reinterpret_cast<uint8_t*>(data);
  const auto mask = static_cast<uint8_t>((1 << bits) - 1);
  for (int64_t row = 0; row < rows; ++row)
    for (int64_t i = 0; i < count; ++i)
      to[row * count + i] = from[row * row_bytes + i / each] >> (i % each * bits) & mask;
  packed.forget();
  return call.builder().constant(std::move(literal));
}

// A zero point for each block: integers packed like the weight, or floating ones as they are.
Value* zero_points(NodeCall& call, int64_t bits, int64_t n, int64_t blocks) {
  Value* given = call.optional_input(3);
  if (given == nullptr)
    return call.builder().scalar(DType::U8, static_cast<double>(int64_t{1} << (bits - 1)));
  if (!is_floating(given->type.dtype)) return unpacked(call, given, bits, n, blocks, "zero points");
  call.expect(given->type.elements().is_constant(n * blocks),
              "zero points of shape " + shape_text(given->type.shape),
              std::to_string(n) + " x " + std::to_string(blocks));
  return call.builder().reshape(given, {n, blocks});
}

// A floating zero point is no integer: the weight is one of floats.
Value* floating_weight(NodeCall& call, Value* q, Value* scale, Value* zero_point, int64_t block) {
  const auto spread = [&](Value* value) {
    const Shape& s = value->type.shape;
    return call.expr(
        call.builder().expand(call.builder().reshape(value, {s[0], s[1], 1}), {s[0], s[1], block}));
  };
  const Shape& s = scale->type.shape;
  const Expr blocks =
      call.expr(call.builder().cast(call.builder().reshape(q, {s[0], s[1], block}), DType::F32));
  const auto wide = [&](Value* value) { return spread(call.builder().cast(value, DType::F32)); };
  return call.builder().reshape((blocks - wide(zero_point)) * wide(scale), q->type.shape);
}

// A times the transpose of a weight of blocks along K.
Value* import_matmul_n_bits(NodeCall& call) {
  Value* a = call.input(0);
  const int64_t k = call.integer("K"), n = call.integer("N"), bits = call.integer_or("bits", 4);
  const int64_t block = call.integer("block_size");
  call.ignore("accuracy_level");  // what sums are at least; these are of f32
  call.ignore("weight_prepacked");
  call.expect(bits == 2 || bits == 4 || bits == 8, std::to_string(bits) + " bits", "2, 4 or 8");
  call.expect(k >= 1 && n >= 1 && block >= 16 && (block & (block - 1)) == 0,
              "K = " + std::to_string(k) + ", N = " + std::to_string(n) +
                  ", block_size = " + std::to_string(block),
              "positive sizes and a block of a power of two, 16 or more");
  call.expect(!call.has_input(4), "g_idx", "none: rows in the order of the model");
  const int64_t blocks = (k + block - 1) / block;
  Value* q = unpacked(call, call.input(1), bits, n, blocks * block, "B");
  Value* scale = call.input(2);
  call.expect(scale->type.elements().is_constant(n * blocks),
              "scales of shape " + shape_text(scale->type.shape),
              std::to_string(n) + " x " + std::to_string(blocks));
  scale = call.builder().reshape(scale, {n, blocks});
  Value* zero_point = zero_points(call, bits, n, blocks);
  const DType dtype = a->type.dtype;
  Value* weight =
      is_floating(zero_point->type.dtype)
          ? call.builder().cast(floating_weight(call, q, scale, zero_point, block), dtype)
          : call.make(Op::dequantize, {q, scale, zero_point}, {{"dtype", dtype}});
  if (blocks * block != k) weight = slice(call.call(), weight, 1, 0, k);
  std::vector<Value*> operands{a, weight};
  if (Value* bias = call.optional_input(5)) operands.push_back(bias);
  return call.make(Op::linear, operands);
}

// alpha * A * B, each perhaps transposed.
Value* import_fused_matmul(NodeCall& call) {
  call.expect(!call.flag_or("transBatchA", false) && !call.flag_or("transBatchB", false),
              "transBatchA or transBatchB", "0");
  const auto operand = [&](size_t i, const char* flag) {
    Value* x = call.input(i);
    if (!call.flag_or(flag, false) || rank_of(x) < 2) return x;
    std::vector<int64_t> axes = range(0, rank_of(x));
    std::swap(axes[axes.size() - 1], axes[axes.size() - 2]);
    return call.builder().permute(x, axes);
  };
  Value* a = operand(0, "transA");
  Value* product = call.aten("aten.matmul.default", {{"self", a}, {"other", operand(1, "transB")}});
  const double alpha = call.real_or("alpha", 1);
  return alpha == 1 ? product : composed(call, product, [&](const Expr& x) { return x * alpha; });
}

Value* gelu(NodeCall& call, const Expr& x, const char* approximate) {
  return call.make(Op::gelu, {x}, {{"approximate", std::string(approximate)}});
}

Value* import_gelu(NodeCall& call) { return gelu(call, call.input_expr(0), "none"); }

Value* import_fast_gelu(NodeCall& call) {
  const Expr x = call.input_expr(0);
  Value* bias = call.optional_input(1);
  return gelu(call, bias == nullptr ? x : x + call.expr(bias), "tanh");
}

Value* import_bias_gelu(NodeCall& call) {
  return gelu(call, call.input_expr(0) + call.input_expr(1), "none");
}

Value* import_quick_gelu(NodeCall& call) {
  const double alpha = call.real_or("alpha", 1.702F);
  return composed(call, call.input(0),
                  [&](const Expr& x) { return x * (x * alpha).apply(Op::sigmoid); });
}

// The sum that is normalised, in f32, and as the type of x.
Value* skip_sum(NodeCall& call, size_t bias_index) {
  const Expr x = call.input_expr(0), skip = call.input_expr(1);
  call.expect(rank_of(x) >= rank_of(skip), "a skip of more axes than x", "as many at most");
  return composed(call, x, [&](const Expr& wide) {
    const auto widened = [&](Value* value) {
      return call.expr(call.builder().cast(value, wide.value()->type.dtype));
    };
    Expr sum = wide + widened(skip);
    if (Value* bias = call.optional_input(bias_index)) sum = sum + widened(bias);
    return sum;
  });
}

// The mean and the deviation's inverse, outputs 1 and 2, are for training.
void expect_no_statistics(NodeCall& call) {
  call.expect(!call.output_used(1) && !call.output_used(2), "mean and inv_std_var",
              "no use of them");
}

std::vector<Value*> import_skip_layer_norm(NodeCall& call) {
  expect_no_statistics(call);
  Value* sum = skip_sum(call, 4);
  std::vector<Value*> operands{sum, call.input(2)};
  if (Value* beta = call.optional_input(3)) operands.push_back(beta);
  const ir::Attrs attrs{{"axes", int64_t{1}}, {"eps", call.real_or("epsilon", 1e-12F)}};
  return {call.make(Op::layer_norm, operands, attrs), nullptr, nullptr, sum};
}

std::vector<Value*> import_skip_simplified_layer_norm(NodeCall& call) {
  expect_no_statistics(call);
  Value* sum = skip_sum(call, 3);
  const ir::Attrs attrs{{"axes", int64_t{1}}, {"eps", call.real_or("epsilon", 1e-12F)}};
  return {call.make(Op::rms_norm, {sum, call.input(2)}, attrs), nullptr, nullptr, sum};
}

// The rows of the first positions.
Value* first_rows(NodeCall& call, Value* table, const Dim& count) {
  if (table->type.rank() == 2 && ir::provably_less_equal(count, table->type.shape[0]))
    return slice(call.call(), table, 0, 0, count);
  return rows_at(call, table, iota(call.call(), count));
}

// Words, positions and segments, added and normalised; how many words of each sequence are no padding; the sum.
std::vector<Value*> import_embed_layer_norm(NodeCall& call) {
  ir::Builder& builder = call.builder();
  const Shape ids = call.input(0)->type.shape;
  call.expect(ids.size() == 2, "input_ids of shape " + shape_text(ids), "rank 2");
  const bool has_segments = call.has_input(1);
  call.expect(has_segments == call.has_input(4), "one of segment_ids and segment_embedding",
              "both or none");
  Value* table = call.input(3);
  Value* given = call.optional_input(8);
  Value* positions =
      given == nullptr ? first_rows(call, table, ids[1]) : rows_at(call, table, given);
  Value* sum = composed(call, rows_at(call, call.input(2), call.input(0)), [&](const Expr& words) {
    const auto wide = [&](Value* x) {
      return call.expr(builder.cast(x, words.value()->type.dtype));
    };
    const Expr both = words + wide(positions);
    return has_segments ? both + wide(rows_at(call, call.input(4), call.input(1))) : both;
  });
  const ir::Attrs attrs{{"axes", int64_t{1}}, {"eps", call.real_or("epsilon", 1e-12F)}};
  Value* result = call.make(Op::layer_norm, {sum, call.input(5), call.input(6)}, attrs);
  Value* counts = full(call, {ids[0]}, DType::I32, 0);
  if (Value* mask = call.optional_input(7)) {
    call.expect(mask->type.rank() == 2, "a mask of shape " + shape_text(mask->type.shape),
                "rank 2");
    const Expr words = call.expr(mask).apply(Op::eq, 1);
    counts = reduce(call.call(), Op::reduce_sum, builder.cast(words, DType::I32), {1}, false);
  }
  call.ignore("mask_index_type");  // what is inferred of the second output
  return {result, counts, sum};
}

constexpr OperatorRow kRows[] = {
    {"com.microsoft.BiasGelu", import_bias_gelu},
    {"com.microsoft.EmbedLayerNormalization", import_embed_layer_norm},
    {"com.microsoft.FastGelu", import_fast_gelu},
    {"com.microsoft.FusedMatMul", import_fused_matmul},
    {"com.microsoft.Gelu", import_gelu},
    {"com.microsoft.MatMulNBits", import_matmul_n_bits},
    {"com.microsoft.QuickGelu", import_quick_gelu},
    {"com.microsoft.SkipLayerNormalization", import_skip_layer_norm},
    {"com.microsoft.SkipSimplifiedLayerNormalization", import_skip_simplified_layer_norm},
};

}  // namespace

OperatorRows microsoft_operators() { return kRows; }

}  // namespace kiln::import::onnx
