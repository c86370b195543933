// Numbers of float8_e4m3fn: products with scales, and what quantisers write in front of products.
// PyTorch multiplies and adds such numbers as f32, in which every product of two is exact.
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

// --- modelopt's tensorrt::quantize_op: there and back, in the dtype of the input ---

// One number, or one for each channel: with the rank of the input, or as a row for its axis 0.
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

Value* through_float8(Call& call, const Expr& x, const Expr& amax) {
  const Expr scale = amax.constant(kLargest) / amax;
  const Expr code(call, call.builder().cast(x * scale, DType::F8E4M3));
  return wide(call, code) * scale.apply(Op::reciprocal);
}

Value* through_integers(Call& call, const Expr& x, const Expr& amax) {
  const bool is_unsigned = call.boolean_or("unsigned", false);
  const bool narrow = call.boolean_or("narrow_range", false);
  const int64_t high = is_unsigned ? 255 : 127;
  const int64_t low = is_unsigned ? 0 : narrow ? -127 : -128;
  const Expr scale = amax / static_cast<double>(high);
  Value* code = call.make(
      Op::quantize, {x, scale},
      {{"dtype", is_unsigned ? DType::U8 : DType::I8}, {"quant_min", low}, {"quant_max", high}});
  return call.make(Op::dequantize, {code, scale}, {{"dtype", DType::F32}});
}

Value* import_quantize_op(Call& call) {
  Value* input = call.tensor("input");
  call.expect(is_floating(input->type.dtype), std::string(dtype_name(input->type.dtype)),
              "a floating dtype");
  const int64_t bits = call.integer("num_bits"), exponent = call.integer("exponent_bits");
  call.expect(bits == 8 && (exponent == 0 || exponent == 4),
              std::to_string(bits) + " bits with " + std::to_string(exponent) + " of exponent",
              "8 bits with 0 of exponent (integers) or 4 (float8_e4m3fn)");
  const Expr x = wide(call, input), amax = wide(call, amax_of(call, input));
  Value* result = exponent == 4 ? through_float8(call, x, amax) : through_integers(call, x, amax);
  return call.builder().cast(result, input->type.dtype);
}

constexpr Row kRows[] = {
    {"aten._scaled_mm.default", import_scaled_mm},
    {"torchao.quantize_affine_float8_non_decomposed.default", import_quantize},
    {"torchao.dequantize_affine_float8_non_decomposed.default", import_dequantize},
    {"tensorrt.quantize_op.default", import_quantize_op},
};

}  // namespace

Rows float8_rows() { return kRows; }

}  // namespace kiln::import
