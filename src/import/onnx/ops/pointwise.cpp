// Element-wise arithmetic, comparisons, logic and conversions.
#include "import/onnx/fields.h"
#include "import/onnx/ops/common.h"

namespace kiln::import::onnx {
namespace {

template <Op op>
Value* unary(NodeCall& call) {
  return call.make(op, {call.input(0)});
}

// Before version 7 the second operand broadcasts where the node says so, from an axis on.
Value* second_operand(NodeCall& call) {
  Value *a = call.input(0), *b = call.input(1);
  if (call.version() >= 7) return b;
  const bool broadcasts = call.flag_or("broadcast", false);
  const int64_t rank = rank_of(a), own = rank_of(b);
  call.expect(broadcasts || a->type.shape == b->type.shape, "operands of different shapes",
              "equal ones, or broadcast = 1");
  const int64_t axis = call.integer_or("axis", rank - own);
  if (!broadcasts || axis == rank - own) return b;
  call.expect(axis >= 0 && axis + own <= rank, "axis " + std::to_string(axis), "one that fits");
  Shape shape(b->type.shape);
  shape.resize(static_cast<size_t>(rank - axis), Dim(1));
  return call.builder().reshape(b, shape);
}

template <Op op>
Value* binary(NodeCall& call) {
  return call.make(op, {call.input(0), second_operand(call)});
}

// Any number of operands, one by one.
template <Op op>
Value* variadic(NodeCall& call) {
  const std::vector<Value*> operands = call.inputs();
  call.expect(!operands.empty(), "no inputs", "one or more");
  Value* result = operands[0];
  for (size_t i = 1; i < operands.size(); ++i) result = call.make(op, {result, operands[i]});
  return result;
}

Value* import_mean(NodeCall& call) {
  const double count = static_cast<double>(call.input_count());
  return composed(call, variadic<Op::add>(call), [&](const Expr& sum) { return sum / count; });
}

Value* import_identity(NodeCall& call) { return call.input(0); }

Value* import_atan(NodeCall& call) {
  return composed(call, call.input(0), [](const Expr& x) { return x.apply(Op::atan2, 1); });
}

Value* import_isinf(NodeCall& call) {
  const Expr x = call.input_expr(0);
  const bool positive = call.flag_or("detect_positive", true);
  const bool negative = call.flag_or("detect_negative", true);
  const Expr infinite = x.apply(Op::isinf);
  if (positive && negative) return infinite;
  if (!positive && !negative) return infinite.apply(Op::bitwise_and, 0);
  return infinite.apply(Op::bitwise_and, x.apply(positive ? Op::gt : Op::lt, 0));
}

Expr checked_divisor(NodeCall& call, const Expr& divisor) {
  if (!is_integer(divisor.value()->type.dtype)) return divisor;
  return call.expr(call.make(Op::check_nonzero, {divisor}, {{"operator", call.node().op_type}}));
}

// Of integers the quotient is truncated.
Value* import_div(NodeCall& call) {
  return call.input_expr(0).apply(Op::div, checked_divisor(call, call.expr(second_operand(call))));
}

Value* import_mod(NodeCall& call) {
  const bool truncates = call.flag_or("fmod", false);
  const Expr x = call.input_expr(0);
  call.expect(truncates || call.version() >= 28 || !is_floating(x.value()->type.dtype),
              "floating operands without fmod", "integers, or fmod = 1");
  return x.apply(truncates ? Op::fmod : Op::remainder, checked_divisor(call, call.input_expr(1)));
}

// The only element of a constant.
std::optional<double> only_number(const Elements* known) {
  if (known == nullptr || known->size() != 1) return std::nullopt;
  if (is_floating(known->dtype)) return known->reals[0];
  if (!known->integers[0].is_constant()) return std::nullopt;
  return static_cast<double>(known->integers[0].constant());
}

// The result has the type of the base, whatever the exponent's.
Value* import_pow(NodeCall& call) {
  Value *base = call.input(0), *exponent = second_operand(call);
  const DType dtype = base->type.dtype;
  ir::Builder& builder = call.builder();
  const auto power = [&](DType common) {
    return builder.cast(
        call.make(Op::pow, {builder.cast(base, common), builder.cast(exponent, common)}), dtype);
  };
  if (!is_floating(dtype) && is_floating(exponent->type.dtype)) return power(DType::F64);
  if (!is_floating(dtype)) return power(promote_types(dtype, exponent->type.dtype));
  const auto number = only_number(call.known(exponent));
  if (!number || rank_of(exponent) > rank_of(base)) return power(dtype);
  return call.aten("aten.pow.Tensor_Scalar", {{"self", base}, {"exponent", *number}});
}

// By products and quotients of powers of two; u8 wraps as bits that are shifted out.
Value* import_bit_shift(NodeCall& call) {
  const std::string direction = call.text_or("direction", "");
  call.expect(direction == "LEFT" || direction == "RIGHT", "direction \"" + direction + "\"",
              "LEFT or RIGHT");
  Value* x = call.input(0);
  call.expect(x->type.dtype == DType::U8, std::string(dtype_name(x->type.dtype)), "u8");
  const auto wide = [&](Value* value) { return call.expr(call.builder().cast(value, DType::I32)); };
  const Expr count = wide(call.input(1)).apply(Op::minimum, 8);
  const Expr factor = count.constant(2).apply(Op::pow, count);
  const Expr result = wide(x).apply(direction == "LEFT" ? Op::mul : Op::floor_div, factor);
  return call.builder().cast(result, DType::U8);
}

Value* import_where(NodeCall& call) {
  return call.make(Op::where, {call.input(0), call.input(1), call.input(2)});
}

Value* import_cast(NodeCall& call) {
  call.ignore("saturate");    // of 8-bit floats
  call.ignore("round_mode");  // of these, too
  const DType dtype = known_dtype(call.integer("to"), "attribute to");
  return call.builder().cast(call.input(0), dtype);
}

Value* import_cast_like(NodeCall& call) {
  call.ignore("saturate");
  call.ignore("round_mode");
  return call.builder().cast(call.input(0), call.input(1)->type.dtype);
}

// Bounds were attributes before version 11.
Value* import_clip(NodeCall& call) {
  Expr x = call.input_expr(0);
  const auto bound = [&](size_t i, const char* name) -> std::optional<Expr> {
    if (Value* value = call.optional_input(i)) return call.expr(value);
    if (call.version() < 11 && call.has(name)) return x.constant(call.real_or(name, 0));
    return std::nullopt;
  };
  if (const auto low = bound(1, "min")) x = x.apply(Op::maximum, *low);
  if (const auto high = bound(2, "max")) x = x.apply(Op::minimum, *high);
  return x;
}

constexpr OperatorRow kRows[] = {
    {"Abs", unary<Op::abs>},
    {"Acos", unary<Op::acos>},
    {"Acosh", unary<Op::acosh>},
    {"Add", binary<Op::add>},
    {"And", binary<Op::bitwise_and>},
    {"Asin", unary<Op::asin>},
    {"Asinh", unary<Op::asinh>},
    {"Atan", import_atan},
    {"Atanh", unary<Op::atanh>},
    {"BitShift", import_bit_shift},
    {"BitwiseAnd", binary<Op::bitwise_and>},
    {"BitwiseNot", unary<Op::bitwise_not>},
    {"BitwiseOr", binary<Op::bitwise_or>},
    {"BitwiseXor", binary<Op::bitwise_xor>},
    {"Cast", import_cast},
    {"CastLike", import_cast_like},
    {"Ceil", unary<Op::ceil>},
    {"Clip", import_clip},
    {"Cos", unary<Op::cos>},
    {"Cosh", unary<Op::cosh>},
    {"Div", import_div},
    {"Equal", binary<Op::eq>},
    {"Erf", unary<Op::erf>},
    {"Exp", unary<Op::exp>},
    {"Floor", unary<Op::floor>},
    {"Greater", binary<Op::gt>},
    {"GreaterOrEqual", binary<Op::ge>},
    {"Identity", import_identity},
    {"IsInf", import_isinf},
    {"IsNaN", unary<Op::isnan>},
    {"Less", binary<Op::lt>},
    {"LessOrEqual", binary<Op::le>},
    {"Log", unary<Op::log>},
    {"Max", variadic<Op::maximum>},
    {"Mean", import_mean},
    {"Min", variadic<Op::minimum>},
    {"Mod", import_mod},
    {"Mul", binary<Op::mul>},
    {"Neg", unary<Op::neg>},
    {"Not", unary<Op::logical_not>},
    {"Or", binary<Op::bitwise_or>},
    {"Pow", import_pow},
    {"Reciprocal", unary<Op::reciprocal>},
    {"Round", unary<Op::round>},
    {"Sign", unary<Op::sign>},
    {"Sin", unary<Op::sin>},
    {"Sinh", unary<Op::sinh>},
    {"Sqrt", unary<Op::sqrt>},
    {"Sub", binary<Op::sub>},
    {"Sum", variadic<Op::add>},
    {"Tan", unary<Op::tan>},
    {"Where", import_where},
    {"Xor", binary<Op::bitwise_xor>},
};

}  // namespace

OperatorRows pointwise_operators() { return kRows; }

}  // namespace kiln::import::onnx
