// Scaled dot-product attention.
#include <cmath>

#include "import/ops/common.h"

namespace kiln::import {
namespace {

// [.., H, L, D] as [B, H, L, D]: all leading axes but one become the batch.
Value* to_rank_4(Call& call, Value* x) {
  ir::Shape shape = x->type.shape;
  call.expect(shape.size() >= 2, "an operand of shape " + shape_text(shape), "rank 2 or more");
  while (shape.size() < 4) shape.insert(shape.begin(), ir::Dim(1));
  while (shape.size() > 4) {
    shape[1] = shape[0] * shape[1];
    shape.erase(shape.begin());
  }
  return call.builder().reshape(x, shape);
}

// Operands whose batch or head count is 1 are repeated; grouped heads are the op's own business.
Value* expand_batch(Call& call, Value* x, const ir::Shape& query, bool grouped) {
  ir::Shape shape = x->type.shape;
  if (shape[0].is_constant(1)) shape[0] = query[0];
  if (!grouped && shape[1].is_constant(1)) shape[1] = query[1];
  return call.builder().expand(x, shape);
}

Value* mask_to_rank_4(Call& call, Value* mask, size_t query_rank) {
  if (query_rank <= 4) return mask;
  const size_t rank = mask->type.rank();
  call.expect(rank <= 2 || rank == query_rank, "a mask of rank " + std::to_string(rank),
              "rank 2 or " + std::to_string(query_rank));
  return rank <= 2 ? mask : to_rank_4(call, mask);
}

Value* attention(Call& call, Value* mask) {
  Value* query = call.tensor("query");
  const ir::Shape query_shape = query->type.shape;
  call.expect(call.real_or("dropout_p", 0) == 0, "attention with dropout", "inference");
  const bool grouped = call.boolean_or("enable_gqa", false);
  Value* q = to_rank_4(call, query);
  const ir::Shape& shape = q->type.shape;
  Value* k = expand_batch(call, to_rank_4(call, call.tensor("key")), shape, grouped);
  Value* v = expand_batch(call, to_rank_4(call, call.tensor("value")), shape, grouped);
  call.expect(shape[3].is_constant() || call.has("scale"),
              "the symbolic head size " + shape[3].str(), "a constant head size");
  const double scale = call.has("scale") ? call.real_or("scale", 1)
                                         : 1 / std::sqrt(static_cast<double>(shape[3].constant()));
  std::vector<Value*> operands{q, k, v};
  if (mask != nullptr) {
    mask = mask_to_rank_4(call, mask, query_shape.size());
    if (mask->type.dtype != DType::Bool) mask = call.builder().cast(mask, q->type.dtype);
    operands.push_back(mask);
  }
  Value* result = call.make(Op::attention, operands,
                            {{"scale", scale}, {"causal", call.boolean_or("is_causal", false)}});
  ir::Shape result_shape = query_shape;
  result_shape.back() = v->type.shape[3];
  return call.builder().reshape(result, result_shape);
}

Value* import_attention(Call& call) { return attention(call, call.optional_tensor("attn_mask")); }

// The kernels that PyTorch chooses between: the result, and statistics for training.
template <size_t outputs>
std::vector<Value*> import_kernel(Call& call) {
  for (size_t i = 1; i < outputs; ++i) {
    call.expect(!call.output_used(i), "a use of output " + std::to_string(i), "inference");
  }
  const char* mask = call.has("attn_bias") ? "attn_bias" : "attn_mask";
  std::vector<Value*> result(outputs, nullptr);
  result[0] = attention(call, call.optional_tensor(mask));
  return result;
}

constexpr Row kRows[] = {
    {"aten.scaled_dot_product_attention.default", import_attention},
    {"aten._scaled_dot_product_flash_attention_for_cpu.default", import_kernel<2>},
    {"aten._scaled_dot_product_flash_attention.default", import_kernel<9>},
    {"aten._scaled_dot_product_efficient_attention.default", import_kernel<4>},
    {"aten._scaled_dot_product_cudnn_attention.default", import_kernel<9>},
    {"aten._scaled_dot_product_attention_math.default", import_kernel<2>},
    {"aten._scaled_dot_product_fused_attention_overrideable.default", import_kernel<9>},
};

}  // namespace

Rows attention_rows() { return kRows; }

}  // namespace kiln::import
