// Numbers of float8_e4m3fn: products with scales, and what quantisers write in front of products.
// PyTorch multiplies and adds such numbers as f32, in which every product of two is exact.
#include "import/ops/float8.h"

#include <string>

#include "import/ops/common.h"

namespace kiln::import {
namespace {

constexpr double kLargest = 448;

bool is_single(const Value* value) { return ir::provably_equal(ir::product(value->type.shape), 1); }

Expr wide(Call& call, Value* value) { return {call, call.builder().cast(value, DType::F32)}; }

void expect_float8(Call& call, std::string_view name) {
  const DType dtype = call.tensor(name)->type.dtype;
  call.expect(dtype == DType::F8E4M3, std::string(name) + " of " + std::string(dtype_name(dtype)),
              "f8e4m3");
}

// One number, or one for each row (axis 0) or column (axis 1) of the product.
Expr scale_of(Call& call, std::string_view name, size_t axis, const ir::Dim& size) {
  Value* scale = call.tensor(name);
  if (is_single(scale)) return wide(call, call.builder().reshape(scale, {}));
  const ir::Shape& shape = scale->type.shape;
  const bool fits =
      shape.size() == 2 && ir::provably_equal(shape[axis], size) && shape[1 - axis].is_constant(1);
  call.expect(fits, std::string(name) + " of shape " + shape_text(shape),
              axis == 0 ? "one number, or one for each row" : "one number, or one for each column");
  return wide(call, scale);
}

Value* import_scaled_mm(Call& call) {
  expect_float8(call, "self");
  expect_float8(call, "mat2");
  call.expect(!call.has("scale_result"), "a scale_result", "None: divide the result");
  const Expr a = wide(call, call.tensor("self")), b = wide(call, call.tensor("mat2"));
  const Expr scales = scale_of(call, "scale_a", 0, a.value()->type.shape[0]) *
                      scale_of(call, "scale_b", 1, b.value()->type.shape[1]);
  Expr result(call, call.make(Op::matmul, {a, b}, {{"transpose_b", false}}));
  result = result * scales;
  if (Value* bias = call.optional_tensor("bias")) result = result + wide(call, bias);
  return call.builder().cast(result, call.dtype("out_dtype").value_or(DType::F8E4M3));
}

Expr clamped_to_range(const Expr& x) {
  return x.apply(Op::maximum, -kLargest).apply(Op::minimum, kLargest);
}

Value* import_quantize(Call& call) {
  const DType dtype = call.dtype("float8_dtype").value_or(DType::F8E4M3);
  call.expect(dtype == DType::F8E4M3, std::string(dtype_name(dtype)), "float8_e4m3fn");
  const Expr scaled = wide(call, call.tensor("tensor")) / wide(call, call.tensor("scale"));
  return call.builder().cast(clamped_to_range(scaled), DType::F8E4M3);
}

Value* import_dequantize(Call& call) {
  const Expr product = wide(call, call.tensor("tensor")) * wide(call, call.tensor("scale"));
  return call.builder().cast(product, call.dtype("output_dtype").value_or(DType::F32));
}

constexpr Row kRows[] = {
    {"aten._scaled_mm.default", import_scaled_mm},
    {"torchao.quantize_affine_float8_non_decomposed.default", import_quantize},
    {"torchao.dequantize_affine_float8_non_decomposed.default", import_dequantize},
};

}  // namespace

// --- modelopt's tensorrt::quantize_op: there and back, in the dtype of the input ---

Value* amax_of(Call& call, const Value* input) {
  Value* amax = call.tensor("amax");
  if (is_single(amax)) return call.builder().reshape(amax, {});
  const size_t rank = input->type.rank();
  if (amax->type.rank() == rank) return amax;
  call.expect(amax->type.rank() == 1 && rank > 0,
              "an amax of shape " + shape_text(amax->type.shape), "one number, or one a channel");
  ir::Shape shape(rank, ir::Dim(1));
  shape[0] = amax->type.shape[0];
  return call.builder().reshape(amax, std::move(shape));
}

Value* import_quantize_op_float8(Call& call) {
  Value* input = call.tensor("input");
  call.expect(is_floating(input->type.dtype), std::string(dtype_name(input->type.dtype)),
              "a floating dtype");
  const int64_t bits = call.integer_or("num_bits", 8);
  call.expect(bits == 8, std::to_string(bits) + " bits with 4 of exponent", "8: float8_e4m3fn");
  const Expr x = wide(call, input), amax = wide(call, amax_of(call, input));
  const Expr scale = amax.constant(kLargest) / amax;
  const Expr code(call, call.builder().cast(x * scale, DType::F8E4M3));
  return call.builder().cast(wide(call, code) * scale.apply(Op::reciprocal), input->type.dtype);
}

Rows float8_rows() { return kRows; }

}  // namespace kiln::import
