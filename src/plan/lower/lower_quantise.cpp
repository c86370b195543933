// quantize and dequantize: pointwise nests in f32, or f64, with a conversion at the integer end.
#include "plan/lower/quantised.h"

namespace kiln::plan {
namespace {

using ir::Op;

Expr load_block(Lowering& lowering, const ir::Value* value, const ir::Shape& x, const Indices& at) {
  return lowering.load(value, block_indices(value->type.shape, x, at));
}

Expr zero_point(Lowering& lowering, const ir::Node& node, const Indices& at, DType dtype) {
  return cast(load_block(lowering, node.input(2), node.output()->type.shape, at), dtype);
}

// clamp(round(x * (1 / scale)) + zero_point, quant_min, quant_max)
Expr quantised(Lowering& lowering, const ir::Node& node, const Indices& at) {
  const Expr operand = lowering.load(node.input(0), at);
  const DType dtype = compute_dtype(operand->dtype);
  const Expr scale = load_block(lowering, node.input(1), node.output()->type.shape, at);
  const Expr inverse =
      cast(apply(Op::reciprocal, {cast(scale, compute_dtype(scale->dtype))}), dtype);
  Expr value = apply(Op::round, {apply(Op::mul, {cast(operand, dtype), inverse})});
  if (node.input(2)) value = apply(Op::add, {value, zero_point(lowering, node, at, dtype)});
  const auto limit = [&](const char* name) {
    return constant(dtype, static_cast<double>(node.attr<int64_t>(name)));
  };
  value = apply(Op::maximum, {value, limit("quant_min")});
  value = apply(Op::minimum, {value, limit("quant_max")});
  return cast(value, node.output()->type.dtype);
}

// (q - zero_point) * scale
Expr dequantised(Lowering& lowering, const ir::Node& node, const Indices& at) {
  Expr scale = load_block(lowering, node.input(1), node.output()->type.shape, at);
  const DType dtype = compute_dtype(scale->dtype);
  Expr value = cast(lowering.load(node.input(0), at), dtype);
  if (node.input(2)) value = apply(Op::sub, {value, zero_point(lowering, node, at, dtype)});
  value = apply(Op::mul, {value, cast(std::move(scale), dtype)});
  return cast(value, node.output()->type.dtype);
}

}  // namespace

void lower_quantise(Lowering& lowering, const ir::Node& node) {
  LoopSpace space = make_loops(node.output()->type.shape);
  Expr value = node.op == Op::quantize ? quantised(lowering, node, space.indices)
                                       : dequantised(lowering, node, space.indices);
  lowering.emit_pointwise(node, std::move(space), std::move(value));
}

}  // namespace kiln::plan
