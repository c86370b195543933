// Quantised numbers, and products of them.
#include <algorithm>

#include "import/onnx/fields.h"
#include "import/onnx/ops/convolution.h"

namespace kiln::import::onnx {
namespace {

// A scale or zero point as it meets x: a scalar, one for each place of an axis, or one for each
// block of it. Block by block they are left as they are: ops broadcast them so.
Value* aligned(NodeCall& call, const Value* x, Value* value, int64_t axis, int64_t block) {
  if (value == nullptr || block > 0) return value;
  if (value->type.elements().is_constant(1)) return call.builder().reshape(value, {});
  call.expect(value->type.rank() == 1, "a scale of shape " + shape_text(value->type.shape),
              "one element, or one for each place of an axis");
  return along_axis(call, value, x->type.rank(), axis);
}

// Each block's number for all of its elements.
Value* spread(NodeCall& call, Value* value, const Shape& shape, int64_t axis, int64_t block) {
  if (value == nullptr || block == 0) return value;
  Shape split = value->type.shape;
  split.insert(split.begin() + axis + 1, Dim(1));
  Shape repeated = split, joined = value->type.shape;
  repeated[static_cast<size_t>(axis) + 1] = block;
  joined[static_cast<size_t>(axis)] *= block;
  ir::Builder& builder = call.builder();
  Value* all = builder.reshape(builder.expand(builder.reshape(value, split), repeated), joined);
  return slice(call.call(), all, axis, 0, shape[static_cast<size_t>(axis)]);
}

struct Parameters {
  Value *scale, *zero_point;
  int64_t axis = 0, block = 0;
};

// With `keeps_blocks`, those of whole blocks are left as they are: dequantize knows blocks.
Parameters read_parameters(NodeCall& call, const Value* x, bool keeps_blocks = false) {
  Parameters result{call.input(1), call.optional_input(2)};
  result.block = call.integer_or("block_size", 0);
  const int64_t axis = call.integer_or("axis", 1);
  const bool single = result.scale->type.elements().is_constant(1) && result.block == 0;
  if (!single) result.axis = call.axis(axis, x->type.rank());
  call.expect(result.block >= 0, "block_size " + std::to_string(result.block), "0 or more");
  for (const Value* each : {result.scale, result.zero_point}) {
    if (result.block > 0 && each != nullptr)
      call.expect(each->type.rank() == x->type.rank(),
                  "a scale or zero point of shape " + shape_text(each->type.shape),
                  "rank " + std::to_string(x->type.rank()));
  }
  result.scale = aligned(call, x, result.scale, result.axis, result.block);
  result.zero_point = aligned(call, x, result.zero_point, result.axis, result.block);
  if (keeps_blocks && result.block > 0) {
    const Dim& size = x->type.shape[static_cast<size_t>(result.axis)];
    const Dim& blocks = result.scale->type.shape[static_cast<size_t>(result.axis)];
    if (ir::provably_equal(blocks * result.block, size)) return result;
  }
  result.scale = spread(call, result.scale, x->type.shape, result.axis, result.block);
  result.zero_point = spread(call, result.zero_point, x->type.shape, result.axis, result.block);
  return result;
}

Expr saturated(NodeCall& call, const Expr& x, DType dtype) {
  const Expr low = x.apply(Op::maximum, static_cast<double>(least_integer(dtype)));
  const Expr kept = low.apply(Op::minimum, static_cast<double>(greatest_integer(dtype)));
  return call.expr(call.builder().cast(kept, dtype));
}

// saturate(round(x / scale) + zero_point): a quotient, and not the product with 1 / scale.
Value* quantised(NodeCall& call, const Expr& x, Value* scale, Value* zero_point, DType dtype) {
  ir::Builder& builder = call.builder();
  const Expr wide = call.expr(builder.cast(x, DType::F32));
  const Expr steps = (wide / call.expr(builder.cast(scale, DType::F32))).apply(Op::round);
  if (zero_point == nullptr) return saturated(call, steps, dtype);
  return saturated(call, steps + call.expr(builder.cast(zero_point, DType::F32)), dtype);
}

DType quantised_dtype(NodeCall& call, const Value* zero_point) {
  DType dtype = zero_point != nullptr ? zero_point->type.dtype : DType::U8;
  const int64_t given = call.integer_or("output_dtype", 0);
  if (given != 0) dtype = known_dtype(given, "attribute output_dtype");
  call.expect(dtype == DType::U8 || dtype == DType::I8 || dtype == DType::I16,
              "numbers of " + std::string(dtype_name(dtype)), "u8, i8 or i16");
  return dtype;
}

Value* import_quantize(NodeCall& call) {
  Value* x = call.input(0);
  call.ignore("saturate");   // of 8-bit floats
  call.ignore("precision");  // f32 at least
  const Parameters parameters = read_parameters(call, x);
  return quantised(call, call.expr(x), parameters.scale, parameters.zero_point,
                   quantised_dtype(call, call.optional_input(2)));
}

Value* import_dequantize(NodeCall& call) {
  Value* q = call.input(0);
  const Parameters parameters = read_parameters(call, q, true);
  DType dtype = parameters.scale->type.dtype;
  if (const int64_t given = call.integer_or("output_dtype", 0); given != 0)
    dtype = known_dtype(given, "attribute output_dtype");
  std::vector<Value*> operands{q, parameters.scale};
  if (parameters.zero_point != nullptr) operands.push_back(parameters.zero_point);
  return call.make(Op::dequantize, operands, {{"dtype", dtype}});
}

// To u8, with 0 among what can be said exactly.
std::vector<Value*> import_dynamic_quantize(NodeCall& call) {
  Value* input = call.input(0);
  const Expr x = call.input_expr(0);
  const std::vector<int64_t> axes = range(0, rank_of(input));
  const Expr low =
      call.expr(reduce(call.call(), Op::reduce_min, x, axes, false)).apply(Op::minimum, 0);
  const Expr high =
      call.expr(reduce(call.call(), Op::reduce_max, x, axes, false)).apply(Op::maximum, 0);
  const Expr scale = (high - low) / 255;
  const Expr zero_point = saturated(call, (-low / scale).apply(Op::round), DType::U8);
  return {quantised(call, x, scale, zero_point, DType::U8), scale, zero_point};
}

// Products of 8-bit numbers are integers: exact in f32 up to 2^24 and in f64 beyond.
DType exact_dtype(const Dim& products) {
  constexpr int64_t kLargest = 255 * 255;
  const bool few = products.upper_bound() <= (int64_t{1} << 24) / kLargest;
  return few ? DType::F32 : DType::F64;
}

// The numbers less their zero point, as floats that hold them exactly: dequantized, which products of integers know.
Value* centred(NodeCall& call, Value* q, Value* zero_point, DType dtype) {
  std::vector<Value*> operands{q, call.builder().scalar(DType::F32, 1)};
  if (zero_point != nullptr) operands.push_back(zero_point);
  return call.make(Op::dequantize, operands, {{"dtype", dtype}});
}

// Zero points of rows come from the left, those of columns from the right.
Value* row_zero_point(NodeCall& call, Value* zero_point, bool rows) {
  if (zero_point == nullptr) return nullptr;
  if (zero_point->type.elements().is_constant(1)) return call.builder().reshape(zero_point, {});
  return rows && zero_point->type.rank() == 1 ? unsqueeze(call.call(), zero_point, 1) : zero_point;
}

struct Factor {
  Value *q, *scale, *zero_point;
};

Value* integer_product(NodeCall& call, const Factor& a, const Factor& b) {
  call.expect(a.q->type.rank() >= 1, "a scalar", "rank 1 or more");
  const DType dtype = exact_dtype(a.q->type.shape.back());
  return call.aten(
      "aten.matmul.default",
      {{"self", centred(call, a.q, row_zero_point(call, a.zero_point, true), dtype)},
       {"other", centred(call, b.q, row_zero_point(call, b.zero_point, false), dtype)}});
}

Value* import_matmul_integer(NodeCall& call) {
  const Factor a{call.input(0), nullptr, call.optional_input(2)};
  const Factor b{call.input(1), nullptr, call.optional_input(3)};
  return call.builder().cast(integer_product(call, a, b), DType::I32);
}

// An exact sum of products as a quantised number: round(sum * (a.scale * b.scale / y.scale)).
Value* requantised(NodeCall& call, Value* sum, Value* scales, const Factor& y) {
  ir::Builder& builder = call.builder();
  const auto wide = [&](Value* value) { return call.expr(builder.cast(value, DType::F32)); };
  const Expr ratio = wide(scales) / wide(builder.reshape(y.scale, {}));
  const Expr steps = (wide(sum) * ratio).apply(Op::round);
  return saturated(call, steps + wide(builder.reshape(y.zero_point, {})), y.zero_point->type.dtype);
}

Value* import_qlinear_matmul(NodeCall& call) {
  const Factor a{call.input(0), call.input(1), call.input(2)};
  const Factor b{call.input(3), call.input(4), call.input(5)};
  const Factor y{nullptr, call.input(6), call.input(7)};
  Value* sum = call.builder().cast(integer_product(call, a, b), DType::I32);
  const Expr scales = call.expr(row_zero_point(call, a.scale, true)) *
                      call.expr(row_zero_point(call, b.scale, false));
  return requantised(call, sum, scales, y);
}

// A zero point or scale of the outputs of a convolution's weight, or of all.
Value* per_output(NodeCall& call, Value* value, size_t rank, int64_t axis) {
  if (value == nullptr) return nullptr;
  if (value->type.elements().is_constant(1)) return call.builder().reshape(value, {});
  return along_axis(call, value, rank, axis);
}

Value* integer_convolution(NodeCall& call, const Factor& x, const Factor& w) {
  const Shape& shape = w.q->type.shape;
  call.expect(shape.size() >= 3, "a weight of shape " + shape_text(shape), "rank 3 or more");
  const DType dtype = exact_dtype(ir::product({shape.begin() + 1, shape.end()}));
  Value* zero = x.zero_point == nullptr ? nullptr : call.builder().reshape(x.zero_point, {});
  Value* weight_zero = per_output(call, w.zero_point, shape.size(), 0);
  return convolve(call, centred(call, x.q, zero, dtype), centred(call, w.q, weight_zero, dtype),
                  nullptr);
}

Value* import_conv_integer(NodeCall& call) {
  const Factor x{call.input(0), nullptr, call.optional_input(2)};
  const Factor w{call.input(1), nullptr, call.optional_input(3)};
  return call.builder().cast(integer_convolution(call, x, w), DType::I32);
}

Value* import_qlinear_conv(NodeCall& call) {
  const Factor x{call.input(0), call.input(1), call.input(2)};
  const Factor w{call.input(3), call.input(4), call.input(5)};
  const Factor y{nullptr, call.input(6), call.input(7)};
  Value* sum = call.builder().cast(integer_convolution(call, x, w), DType::I32);
  const size_t rank = sum->type.rank();
  if (Value* bias = call.optional_input(8))
    sum = call.expr(sum) +
          call.expr(call.builder().cast(along_axis(call, bias, rank, 1), DType::I32));
  const Expr scales = call.expr(call.builder().reshape(x.scale, {})) *
                      call.expr(per_output(call, w.scale, rank, 1));
  return requantised(call, sum, scales, y);
}

constexpr OperatorRow kRows[] = {
    {"ConvInteger", import_conv_integer},
    // What ONNX had no types for until version 21.
    {"com.microsoft.DequantizeLinear", import_dequantize},
    {"com.microsoft.QuantizeLinear", import_quantize},
    {"DequantizeLinear", import_dequantize},
    {"DynamicQuantizeLinear", import_dynamic_quantize},
    {"MatMulInteger", import_matmul_integer},
    {"QLinearConv", import_qlinear_conv},
    {"QLinearMatMul", import_qlinear_matmul},
    {"QuantizeLinear", import_quantize},
};

}  // namespace

OperatorRows quantise_operators() { return kRows; }

}  // namespace kiln::import::onnx
