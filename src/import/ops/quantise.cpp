// Quantised models: PT2E's quantized_decomposed operators, torchao's affine ones, and the fake quantiser of
// NVIDIA's Model Optimizer.
//
// Operators that round before they add the zero point become `quantize`. Those that add it first
// (per token, per group) are composed up to the rounding, which is then a quantize of scale 1.
#include <limits>

#include "import/ops/common.h"
#include "import/ops/float8.h"

namespace kiln::import {
namespace {

using ir::Dim;
using ir::Shape;

// The range of quantised numbers that a call names.
struct QuantRange {
  DType dtype = DType::I8;
  int64_t low = 0, high = 0;
};

DType integer_dtype(Call& call, std::string_view name) {
  const std::optional<DType> dtype = call.dtype(name);
  call.expect(dtype.has_value() && is_integer(*dtype),
              dtype ? std::string(dtype_name(*dtype)) : "no dtype", "an integer dtype");
  return *dtype;
}

int64_t limit_or(Call& call, std::string_view name, int64_t fallback) {
  return static_cast<int64_t>(call.real_or(name, static_cast<double>(fallback)));
}

QuantRange range_of(Call& call, std::string_view dtype_name) {
  const DType dtype = integer_dtype(call, dtype_name);
  return {dtype, limit_or(call, "quant_min", least_integer(dtype)),
          limit_or(call, "quant_max", greatest_integer(dtype))};
}

Value* quantize(Call& call, Value* x, Value* scale, Value* zero_point, const QuantRange& range) {
  std::vector<Value*> inputs = {x, scale};
  if (zero_point != nullptr) inputs.push_back(zero_point);
  return call.make(Op::quantize, std::move(inputs),
                   {{"dtype", range.dtype}, {"quant_min", range.low}, {"quant_max", range.high}});
}

// (q - zero_point) * scale. The difference is PyTorch's: of integers where both are, which wraps
// around in the dtype that they have together.
Value* dequantize(Call& call, Value* q, Value* scale, Value* zero_point, DType dtype) {
  std::vector<Value*> inputs = {q, scale};
  if (zero_point != nullptr) {
    const DType own = q->type.dtype, zero = zero_point->type.dtype;
    const DType common = promote_types(own, zero);
    // Exact in f32 whichever way it is taken.
    const bool narrow = dtype_size(own) <= 2 && (is_floating(zero) || dtype_size(common) >= 4);
    if (narrow) {
      inputs.push_back(zero_point);
    } else {
      call.expect(is_integer(common), "a zero point of " + std::string(dtype_name(zero)),
                  "an integer dtype beside " + std::string(dtype_name(own)));
      const Shape spread = zero_point->type.shape;
      call.expect(ir::provably_equal(ir::product(spread), 1) || spread.size() == q->type.rank(),
                  "a zero point of shape " + shape_text(spread), "the rank of the operand");
      inputs[0] = call.make(
          Op::sub, {call.builder().cast(q, common), call.builder().cast(zero_point, common)});
    }
  }
  return call.make(Op::dequantize, std::move(inputs), {{"dtype", dtype}});
}

DType output_dtype(Call& call, std::string_view name) {
  const DType dtype = call.dtype(name).value_or(DType::F32);
  call.expect(is_floating(dtype), std::string(dtype_name(dtype)), "a floating dtype");
  return dtype;
}

// The operand, of a dtype that PyTorch's operators take.
Value* floating_input(Call& call) {
  Value* x = call.tensor("input");
  const DType dtype = x->type.dtype;
  call.expect(dtype == DType::F32 || is_16_bit_float(dtype), std::string(dtype_name(dtype)),
              "f32, f16 or bf16");
  return x;
}

// x as f32, as the operators take 16-bit floats; f64 beside scales that are tensors of f64.
Value* operand_of(Call& call, const Value* scale) {
  Value* x = floating_input(call);
  const bool wide = scale != nullptr && scale->type.dtype == DType::F64;
  return call.builder().cast(x, wide ? DType::F64 : DType::F32);
}

// --- Per tensor ---

Value* as_scalar(Call& call, Value* x) {
  return x->type.rank() == 0 ? x : call.builder().reshape(x, {});
}

// A number or a tensor of one element, as rank 0. A zero is no zero point.
Value* scalar_argument(Call& call, std::string_view name, DType dtype) {
  const Operand operand = call.operand(name);
  if (operand.tensor != nullptr) return as_scalar(call, operand.tensor);
  const bool is_zero = number_as_double(operand.number) == 0;
  return is_zero ? nullptr : as_value(call.builder(), operand, dtype);
}

Value* scale_argument(Call& call) {
  Value* scale = scalar_argument(call, "scale", DType::F64);
  call.expect(scale != nullptr, "a scale of 0", "another number");
  return scale;
}

Value* import_quantize_per_tensor(Call& call) {
  Value* x = operand_of(call, nullptr);
  Value* zero_point = scalar_argument(call, "zero_point", DType::I64);
  return quantize(call, x, scale_argument(call), zero_point, range_of(call, "dtype"));
}

// The ends of the range are tensors, too: integers are clamped to them.
Value* import_quantize_per_tensor_tensor2(Call& call) {
  const DType dtype = integer_dtype(call, "dtype");
  Value* x = operand_of(call, nullptr);
  Value* zero_point = scalar_argument(call, "zero_point", DType::I64);
  Value* q = quantize(call, x, scale_argument(call), zero_point,
                      {dtype, least_integer(dtype), greatest_integer(dtype)});
  const auto end = [&](std::string_view name) {
    return call.builder().cast(as_scalar(call, call.tensor(name)), dtype);
  };
  q = call.make(Op::maximum, {q, end("quant_min")});
  return call.make(Op::minimum, {q, end("quant_max")});
}

// A Python number beside a tensor has the tensor's precision.
Value* import_dequantize_per_tensor(Call& call) {
  const DType dtype = output_dtype(call, "out_dtype");
  const DType precision = dtype == DType::F64 ? DType::F64 : DType::F32;
  Value* scale = call.builder().cast(scale_argument(call), precision);
  Value* zero_point = scalar_argument(call, "zero_point", DType::I64);
  std::vector<Value*> inputs = {call.tensor("input"), scale};
  if (zero_point != nullptr) inputs.push_back(zero_point);
  return call.make(Op::dequantize, std::move(inputs), {{"dtype", dtype}});
}

// --- Per channel ---

// [C] as [1, C, 1, 1], C in its axis.
Value* along_axis(Call& call, Value* x, size_t rank, int64_t axis) {
  if (x == nullptr) return nullptr;
  Shape shape(rank, Dim(1));
  shape[static_cast<size_t>(axis)] = ir::product(x->type.shape);
  return call.builder().reshape(x, std::move(shape));
}

Value* import_quantize_per_channel(Call& call) {
  const size_t rank = call.tensor("input")->type.rank();
  const int64_t axis = call.axis("axis", rank);
  Value* scale = along_axis(call, call.tensor("scales"), rank, axis);
  Value* zero_point = along_axis(call, call.tensor("zero_points"), rank, axis);
  return quantize(call, operand_of(call, scale), scale, zero_point, range_of(call, "dtype"));
}

Value* import_dequantize_per_channel(Call& call) {
  Value* q = call.tensor("input");
  const size_t rank = q->type.rank();
  const int64_t axis = call.axis("axis", rank);
  Value* scale = along_axis(call, call.tensor("scales"), rank, axis);
  Value* zero_point = along_axis(call, call.optional_tensor("zero_points"), rank, axis);
  return dequantize(call, q, scale, zero_point, output_dtype(call, "out_dtype"));
}

// --- Per token and per group: round(x * (1 / scale) + zero_point) ---

Value* quantize_sum(Call& call, Value* x, Value* scale, Value* zero_point,
                    const QuantRange& range) {
  const Expr inverse = Expr(call, scale).apply(Op::reciprocal);
  const std::vector<Value*> product = promote(call.builder(), {x, inverse.value()});
  const Expr scaled(call, call.make(Op::mul, {product[0], product[1]}));
  const Expr zero(call, call.builder().cast(zero_point, scaled.value()->type.dtype));
  const Expr sum = scaled + zero;
  return quantize(call, sum, sum.constant(1), nullptr, range);
}

Value* import_quantize_per_token(Call& call) {
  return quantize_sum(call, call.tensor("input"), call.tensor("scales"), call.tensor("zero_points"),
                      range_of(call, "dtype"));
}

Value* import_dequantize_per_token(Call& call) {
  return dequantize(call, call.tensor("input"), call.tensor("scales"), call.tensor("zero_points"),
                    output_dtype(call, "output_dtype"));
}

// [rows, groups] of x[rows, columns].
Shape group_shape(Call& call, const Value* x, const Value* scale) {
  call.expect(x->type.rank() == 2, "an operand of shape " + shape_text(x->type.shape), "rank 2");
  const Dim& columns = x->type.shape[1];
  Dim group = call.integer_or("group_size", 128);
  const Shape& own = scale->type.shape;
  const bool whole = !own.empty() && own.back().is_constant(1) && ir::provably_less(columns, group);
  if (whole) group = columns;
  call.expect(ir::provably_divisible(columns, group), "a group size of " + group.str(),
              "a divisor of " + columns.str());
  return {x->type.shape[0], ir::floordiv(columns, group)};
}

Value* import_quantize_per_channel_group(Call& call) {
  Value* x = call.tensor("input");
  Value* scale = call.tensor("scales");
  const Shape shape = x->type.shape;
  const Shape groups = group_shape(call, x, scale);
  const Dim size = ir::floordiv(shape[1], groups[1]);
  x = call.builder().reshape(x, {groups[0], groups[1], size});
  const auto grouped = [&](Value* value) {
    return call.builder().reshape(value, {groups[0], groups[1], Dim(1)});
  };
  Value* q = quantize_sum(call, x, grouped(scale), grouped(call.tensor("zero_points")),
                          range_of(call, "dtype"));
  return call.builder().reshape(q, shape);
}

Value* import_dequantize_per_channel_group(Call& call) {
  Value* q = call.tensor("input");
  Value* scale = call.tensor("scales");
  const Shape groups = group_shape(call, q, scale);
  const auto grouped = [&](Value* value) {
    return value == nullptr ? nullptr : call.builder().reshape(value, groups);
  };
  return dequantize(call, q, grouped(scale), grouped(call.optional_tensor("zero_points")),
                    output_dtype(call, "output_dtype"));
}

// --- Scales and zero points of what is seen at run time ---

struct Extremes {
  Expr low, high;  // at most 0, at least 0
};

Extremes extremes(Call& call, Value* x, std::vector<int64_t> axes, bool keepdim) {
  const Expr low(call, reduce(call, Op::reduce_min, x, axes, keepdim));
  const Expr high(call, reduce(call, Op::reduce_max, x, std::move(axes), keepdim));
  return {low.apply(Op::minimum, 0.0), high.apply(Op::maximum, 0.0)};
}

std::vector<int64_t> all_axes(const Value* x) {
  return range(0, static_cast<int64_t>(x->type.rank()));
}

Expr clamped(const Expr& x, double low, double high) {
  return x.apply(Op::maximum, low).apply(Op::minimum, high);
}

// The number in every place of x.
Expr uniform_like(Call& call, const Expr& x, double number) {
  return {call, call.builder().expand(x.constant(number), x.value()->type.shape)};
}

// f64[1] and i64[1], as PyTorch's observers give them; in f32 from where eps, a tensor of f32, comes
// in.
std::vector<Value*> scalar_parameters(Call& call, const Expr& scale, const Expr& zero_point) {
  return {call.builder().reshape(call.builder().cast(scale, DType::F64), {1}),
          call.builder().reshape(call.builder().cast(zero_point, DType::I64), {1})};
}

Expr scale_of(Call& call, const Expr& scale) {
  const Expr wide(call, call.builder().cast(scale, DType::F32));
  return wide.apply(Op::maximum, call.real_or("eps", std::numeric_limits<float>::epsilon()));
}

std::vector<Value*> import_choose_qparams(Call& call) {
  Value* x = floating_input(call);
  const double low = static_cast<double>(call.integer("quant_min"));
  const double high = static_cast<double>(call.integer("quant_max"));
  const Extremes ends = extremes(call, x, all_axes(x), false);
  const Expr scale = scale_of(call, (ends.high - ends.low) / (high - low));
  const Expr least(call, call.builder().cast(ends.low, DType::F32));
  const Expr shift = (least / scale).apply(Op::round);
  return scalar_parameters(call, scale, clamped(low - shift, low, high));
}

std::vector<Value*> import_choose_qparams_symmetric(Call& call) {
  Value* x = floating_input(call);
  const double low = static_cast<double>(call.integer("quant_min"));
  const double high = static_cast<double>(call.integer("quant_max"));
  const Extremes ends = extremes(call, x, all_axes(x), false);
  const Expr largest = (-ends.low).apply(Op::maximum, ends.high);
  const Expr scale = scale_of(call, largest / ((high - low) / 2));
  const double middle = call.dtype("dtype") == DType::U8 ? 128 : 0;
  return scalar_parameters(call, scale, scale.constant(middle));
}

std::vector<int64_t> last_axis(Call& call, const Value* x) {
  call.expect(x->type.rank() > 0, "a scalar", "rank 1 or more");
  return {static_cast<int64_t>(x->type.rank()) - 1};
}

// f32, but recorded as f64 and i64 by tracing.
std::vector<Value*> import_choose_qparams_per_token(Call& call) {
  Value* x = call.tensor("input");
  call.expect(call.dtype("dtype") == DType::I8, "another dtype", "int8");
  Expr scale(call,
             reduce(call, Op::reduce_max, Expr(call, x).apply(Op::abs), last_axis(call, x), true));
  if (x->type.dtype == DType::F16) scale = Expr(call, call.builder().cast(scale, DType::F32));
  scale = scale.apply(Op::maximum, 1e-5) / 127;
  return {call.builder().cast(scale, DType::F64),
          call.builder().cast(uniform_like(call, scale, 0), DType::I64)};
}

std::vector<Value*> import_choose_qparams_per_token_asymmetric(Call& call) {
  constexpr double kLow = -128, kHigh = 127;
  Value* x = call.tensor("input");
  const Extremes ends = extremes(call, x, last_axis(call, x), true);
  const Expr scale = ((ends.high - ends.low) / (kHigh - kLow))
                         .apply(Op::maximum, std::numeric_limits<float>::epsilon());
  const Expr low = ends.low / scale, high = ends.high / scale;
  const Expr from_low_error = low + kLow, from_high_error = high + kHigh;
  const Expr from_low = (from_low_error + from_high_error).apply(Op::gt, 0.0);
  const Expr zero_point = from_low.select(kLow - low, kHigh - high);
  return {call.builder().cast(scale, DType::F64),
          call.builder().cast(clamped(zero_point, kLow, kHigh).apply(Op::round), DType::I64)};
}

// --- torchao: blocks of any shape ---

// How many blocks there are along each axis of x.
Shape block_counts(Call& call, const Value* x) {
  const std::vector<Dim> sizes = call.dims("block_size");
  const Shape& shape = x->type.shape;
  call.expect(sizes.size() == shape.size(), "a block of shape " + shape_text(sizes),
              "one size for each axis of " + shape_text(shape));
  Shape counts;
  for (size_t i = 0; i < sizes.size(); ++i) {
    call.expect(ir::provably_divisible(shape[i], sizes[i]), "a block of size " + sizes[i].str(),
                "a divisor of " + shape[i].str());
    counts.push_back(ir::provably_equal(shape[i], sizes[i]) ? Dim(1)
                                                            : ir::floordiv(shape[i], sizes[i]));
  }
  return counts;
}

// A zero point without elements is none.
Value* block_zero_point(Call& call, const Shape& counts) {
  Value* zero_point = call.optional_tensor("zero_point");
  if (zero_point == nullptr || zero_point->type.elements().is_constant(0)) return nullptr;
  return call.builder().reshape(zero_point, counts);
}

Value* import_quantize_affine(Call& call) {
  const Shape counts = block_counts(call, call.tensor("input"));
  Value* scale = call.builder().reshape(call.tensor("scale"), counts);
  return quantize(call, operand_of(call, scale), scale, block_zero_point(call, counts),
                  range_of(call, "output_dtype"));
}

Value* import_dequantize_affine(Call& call) {
  Value* q = call.tensor("input");
  const Shape counts = block_counts(call, q);
  Value* scale = call.builder().reshape(call.tensor("scale"), counts);
  std::vector<Value*> inputs = {q, scale};
  if (Value* zero_point = block_zero_point(call, counts)) inputs.push_back(zero_point);
  return call.make(Op::dequantize, std::move(inputs),
                   {{"dtype", output_dtype(call, "output_dtype")}});
}

// x with each axis that has several blocks in two, [blocks, size]: the axes that a block covers.
struct Blocked {
  Value* x;
  std::vector<int64_t> axes;
};

Blocked blocked(Call& call, Value* x) {
  const Shape counts = block_counts(call, x);
  Shape shape;
  std::vector<int64_t> axes;
  for (size_t i = 0; i < counts.size(); ++i) {
    const Dim& size = x->type.shape[i];
    const Dim block = counts[i].is_constant(1) ? size : ir::floordiv(size, counts[i]);
    if (!counts[i].is_constant(1) && !block.is_constant(1)) shape.push_back(counts[i]);
    if (!block.is_constant(1)) axes.push_back(static_cast<int64_t>(shape.size()));
    shape.push_back(block.is_constant(1) ? size : block);
  }
  call.expect(!axes.empty(), "blocks of one element", "larger blocks");
  return {call.builder().reshape(x, std::move(shape)), std::move(axes)};
}

// The scale of numbers between -high and high.
Expr symmetric_scale(const Extremes& ends, const QuantRange& range, bool clips) {
  const double low = static_cast<double>(range.low), high = static_cast<double>(range.high);
  if (clips) return (-ends.low).apply(Op::maximum, ends.high) / ((high - low) / 2);
  const Expr below = ends.low / low, above = ends.high / high;
  return below.apply(Op::gt, above).select(below, above);
}

double smallest_normal(DType dtype) {
  if (dtype == DType::F64) return std::numeric_limits<double>::min();
  return dtype == DType::F16 ? 0x1p-14 : std::numeric_limits<float>::min();
}

std::vector<Value*> import_choose_qparams_affine(Call& call) {
  Value* input = call.tensor("input");
  const QuantRange range = range_of(call, "target_dtype");
  const double low = static_cast<double>(range.low), high = static_cast<double>(range.high);
  const std::string mapping = call.text_or("mapping_type", "");
  const bool asymmetric = mapping == "ASYMMETRIC", clips = mapping == "SYMMETRIC";
  call.expect(asymmetric || clips || mapping == "SYMMETRIC_NO_CLIPPING_ERR",
              "mapping_type " + mapping, "SYMMETRIC, SYMMETRIC_NO_CLIPPING_ERR or ASYMMETRIC");
  const bool keepdim = call.boolean_or("keepdim", false);
  auto [x, axes] = blocked(call, input);
  const Extremes ends = extremes(call, x, std::move(axes), keepdim);
  Expr scale =
      asymmetric ? (ends.high - ends.low) / (high - low) : symmetric_scale(ends, range, clips);
  scale = scale.apply(Op::maximum, call.real_or("eps", smallest_normal(input->type.dtype)));
  const Expr zero_point =
      asymmetric ? clamped(low - (ends.low / scale).apply(Op::round), low, high)
                 : uniform_like(call, scale, static_cast<double>((range.low + range.high + 1) / 2));
  const std::optional<DType> dtype = call.dtype("zero_point_dtype");
  Value* results[] = {cast_if(call, scale, call.dtype("scale_dtype")),
                      cast_if(call, zero_point, asymmetric ? dtype.value_or(DType::I32) : dtype)};
  if (!keepdim) return {results[0], results[1]};
  const Shape counts = block_counts(call, input);
  return {call.builder().reshape(results[0], counts), call.builder().reshape(results[1], counts)};
}

// What the largest magnitude of each block is divided by to be the largest number of float8_e4m3fn.
Value* import_choose_scale_float8(Call& call) {
  Value* input = call.tensor("tensor");
  const DType code = call.dtype("float8_dtype").value_or(DType::F8E4M3);
  call.expect(code == DType::F8E4M3, std::string(dtype_name(code)), "float8_e4m3fn");
  const DType dtype = call.dtype("scale_dtype").value_or(DType::F32);
  call.expect(dtype == DType::F32, "scales of " + std::string(dtype_name(dtype)), "f32");
  auto [x, axes] = blocked(call, input);
  Value* magnitude = Expr(call, x).apply(Op::abs).value();
  Expr largest(call, reduce(call, Op::reduce_max, magnitude, std::move(axes), false));
  if (call.has("hp_value_lb")) largest = largest.apply(Op::maximum, call.real_or("hp_value_lb", 0));
  if (call.has("hp_value_ub")) largest = largest.apply(Op::minimum, call.real_or("hp_value_ub", 0));
  constexpr double kLargestFloat8 = 448;
  // The quotient is one of the input's dtype.
  Value* scale = call.builder().cast(largest / kLargestFloat8, input->type.dtype);
  return call.builder().reshape(call.builder().cast(scale, dtype), block_counts(call, input));
}

// tensorrt::quantize_op(input, amax, num_bits, exponent_bits, unsigned, narrow_range): rounds to the numbers
// that integers of `num_bits` stand for where amax, of all or of each channel, is the largest.
Value* import_quantize_op(Call& call) {
  const int64_t exponent_bits = call.integer_or("exponent_bits", 0);
  if (exponent_bits == 4) return import_quantize_op_float8(call);
  call.expect(exponent_bits == 0, std::to_string(exponent_bits) + " exponent bits",
              "0: integers, or 4: float8_e4m3fn");
  const int64_t bits = call.integer_or("num_bits", 8);
  call.expect(bits >= 2 && bits <= 8, std::to_string(bits) + " bits", "2 to 8");
  const bool is_unsigned = call.boolean_or("unsigned", false);
  const int64_t high = (int64_t{1} << (is_unsigned ? bits : bits - 1)) - 1;
  const int64_t low = is_unsigned ? 0 : call.boolean_or("narrow_range", false) ? -high : -high - 1;
  Value* x = floating_input(call);
  Value* amax = call.builder().cast(amax_of(call, x), DType::F32);
  Value* scale = call.make(Op::div, {amax, call.constant_like(amax, static_cast<double>(high))});
  Value* q = quantize(call, call.builder().cast(x, DType::F32), scale, nullptr,
                      {is_unsigned ? DType::U8 : DType::I8, low, high});
  return dequantize(call, q, scale, nullptr, x->type.dtype);
}

Value* import_convert_element_type(Call& call) {
  return cast_if(call, call.tensor("input"), call.dtype("dtype"));
}

constexpr Row kRows[] = {
    {"quantized_decomposed.quantize_per_tensor.default", import_quantize_per_tensor},
    {"quantized_decomposed.quantize_per_tensor.tensor", import_quantize_per_tensor},
    {"quantized_decomposed.quantize_per_tensor.tensor2", import_quantize_per_tensor_tensor2},
    {"quantized_decomposed.dequantize_per_tensor.default", import_dequantize_per_tensor},
    {"quantized_decomposed.dequantize_per_tensor.tensor", import_dequantize_per_tensor},
    {"quantized_decomposed.dequantize_per_tensor.tensor2", import_dequantize_per_tensor},
    {"quantized_decomposed.quantize_per_channel.default", import_quantize_per_channel},
    {"quantized_decomposed.dequantize_per_channel.default", import_dequantize_per_channel},
    {"quantized_decomposed.quantize_per_channel_group.default", import_quantize_per_channel_group},
    {"quantized_decomposed.dequantize_per_channel_group.default",
     import_dequantize_per_channel_group},
    {"quantized_decomposed.quantize_per_token.default", import_quantize_per_token},
    {"quantized_decomposed.dequantize_per_token.default", import_dequantize_per_token},
    {"quantized_decomposed.choose_qparams.tensor", import_choose_qparams},
    {"quantized_decomposed.choose_qparams_symmetric.tensor", import_choose_qparams_symmetric},
    {"quantized_decomposed.choose_qparams_per_token.default", import_choose_qparams_per_token},
    {"quantized_decomposed.choose_qparams_per_token_asymmetric.default",
     import_choose_qparams_per_token_asymmetric},
    {"quantized_decomposed._choose_qparams_per_token_asymmetric_impl.default",
     import_choose_qparams_per_token_asymmetric},
    {"quantized_decomposed.convert_element_type.no_fuse", import_convert_element_type},
    {"tensorrt.quantize_op.default", import_quantize_op},
    {"torchao.quantize_affine.default", import_quantize_affine},
    {"torchao.dequantize_affine.default", import_dequantize_affine},
    {"torchao.choose_qparams_affine.default", import_choose_qparams_affine},
    {"torchao.choose_scale_float8.default", import_choose_scale_float8},
};

}  // namespace

Rows quantise_rows() { return kRows; }

}  // namespace kiln::import
