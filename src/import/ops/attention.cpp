// Scaled dot-product attention.
#include <cmath>
#include <span>

#include "import/ops/common.h"

namespace kiln::import {
namespace {

// [.., H, L, D] as [B, H, L, D]: all leading axes but one become the batch.
Value* to_rank_4(Call& call, Value* x) {
  ir::Shape shape = x->type.shape;
  while (shape.size() < 4) shape.insert(shape.begin(), ir::Dim(1));
  while (shape.size() > 4) {
    shape[1] = shape[0] * shape[1];
    shape.erase(shape.begin());
  }
  return call.builder().reshape(x, shape);
}

// What the axes before the last two are together; grouped heads are the op's own business.
ir::Shape common_batch(std::span<Value* const> operands, bool grouped) {
  ir::Shape batch;
  for (const Value* x : operands) {
    const ir::Shape& shape = x->type.shape;
    batch = ir::broadcast_shapes(batch, ir::Shape(shape.begin(), shape.end() - (grouped ? 3 : 2)));
  }
  return batch;
}

Value* expand_batch(Call& call, Value* x, ir::Shape batch, bool grouped) {
  const ir::Shape& shape = x->type.shape;
  batch.insert(batch.end(), shape.end() - (grouped ? 3 : 2), shape.end());
  return call.builder().expand(x, batch);
}

Value* mask_to_rank_4(Call& call, Value* mask, size_t query_rank) {
  if (query_rank <= 4) return mask;
  const size_t rank = mask->type.rank();
  call.expect(rank <= 2 || rank == query_rank, "a mask of rank " + std::to_string(rank),
              "rank 2 or " + std::to_string(query_rank));
  return rank <= 2 ? mask : to_rank_4(call, mask);
}

// By the root of the head size, if that is not known before.
Value* scaled_by_size(Call& call, Value* q) {
  const Expr size(call, as_value(call.builder(), Number(q->type.shape.back()), q->type.dtype));
  return Expr(call, q) * size.apply(Op::rsqrt);
}

Value* attention(Call& call, Value* mask, bool grouped) {
  call.expect(call.real_or("dropout_p", 0) == 0, "attention with dropout", "inference");
  std::vector<Value*> operands{call.tensor("query"), call.tensor("key"), call.tensor("value")};
  for (const Value* x : operands)
    call.expect(x->type.rank() >= (grouped ? 3 : 2),
                "an operand of shape " + shape_text(x->type.shape), "rank 2 or more");
  const DType dtype = operands[0]->type.dtype;
  const ir::Dim head_size = operands[0]->type.shape.back();
  const bool knows_scale = call.has("scale") || head_size.is_constant();
  const ir::Shape batch = common_batch(operands, grouped);
  ir::Shape result_shape;
  for (Value*& x : operands) {
    x = expand_batch(call, x, batch, grouped);
    if (result_shape.empty()) result_shape = x->type.shape;
    x = to_rank_4(call, x);
    if (!knows_scale) x = call.builder().cast(x, compute_dtype(dtype));
  }
  result_shape.back() = operands[2]->type.shape[3];
  double scale = call.real_or("scale", 1);
  if (!knows_scale) operands[0] = scaled_by_size(call, operands[0]);
  if (!call.has("scale") && knows_scale)
    scale = 1 / std::sqrt(static_cast<double>(head_size.constant()));
  if (mask != nullptr) {
    mask = mask_to_rank_4(call, mask, result_shape.size());
    operands.push_back(mask_for(call, mask, operands[0]->type.dtype));
  }
  Value* result = call.make(Op::attention, operands,
                            {{"scale", scale}, {"causal", call.boolean_or("is_causal", false)}});
  return call.builder().cast(call.builder().reshape(result, result_shape), dtype);
}

Value* import_attention(Call& call) {
  return attention(call, call.optional_tensor("attn_mask"), call.boolean_or("enable_gqa", false));
}

// Whether fewer heads of keys and values are as good as repeated ones, without being told.
enum class Heads : uint8_t { Equal, Grouped };

// The kernels that PyTorch chooses between: the result, and statistics for training.
template <size_t outputs, Heads heads = Heads::Equal>
std::vector<Value*> import_kernel(Call& call) {
  for (size_t i = 1; i < outputs; ++i) {
    call.expect(!call.output_used(i), "a use of output " + std::to_string(i), "inference");
  }
  const char* mask = call.has("attn_bias") ? "attn_bias" : "attn_mask";
  std::vector<Value*> result(outputs, nullptr);
  const bool grouped = heads == Heads::Grouped || call.boolean_or("enable_gqa", false);
  result[0] = attention(call, call.optional_tensor(mask), grouped);
  return result;
}

constexpr Row kRows[] = {
    {"aten.scaled_dot_product_attention.default", import_attention},
    {"aten._scaled_dot_product_flash_attention_for_cpu.default", import_kernel<2, Heads::Grouped>},
    {"aten._scaled_dot_product_flash_attention.default", import_kernel<9, Heads::Grouped>},
    {"aten._scaled_dot_product_efficient_attention.default", import_kernel<4>},
    {"aten._scaled_dot_product_cudnn_attention.default", import_kernel<9, Heads::Grouped>},
    {"aten._scaled_dot_product_attention_math.default", import_kernel<2>},
    {"aten._scaled_dot_product_fused_attention_overrideable.default", import_kernel<9>},
};

}  // namespace

Rows attention_rows() { return kRows; }

}  // namespace kiln::import
