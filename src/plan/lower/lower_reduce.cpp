// Reductions and scans.
#include "ir/op_table.h"
#include "plan/lower/lowering.h"
#include "support/error.h"

namespace kiln::plan {
namespace {

using ir::Op;

std::vector<bool> marked(size_t rank, const std::vector<int64_t>& axes) {
  std::vector<bool> result(rank);
  for (int64_t axis : axes) result[static_cast<size_t>(axis)] = true;
  return result;
}

ReduceOp reduce_op(Op op) {
  switch (op) {
    case Op::reduce_sum:
    case Op::reduce_mean:
    case Op::cumsum:
      return ReduceOp::Sum;
    case Op::reduce_prod:
    case Op::cumprod:
      return ReduceOp::Prod;
    case Op::reduce_max:
    case Op::cummax:
      return ReduceOp::Max;
    case Op::reduce_min:
    case Op::cummin:
      return ReduceOp::Min;
    case Op::argmax:
      return ReduceOp::ArgMax;
    case Op::argmin:
      return ReduceOp::ArgMin;
    default:
      break;
  }
  throw InternalError("[" + std::string(op_name(op)) + "] is not a reduction");
}

// The outer position as a position of the result: reduced axes are dropped, or stay with size 1.
Indices result_position(const AxisSplit& split, const std::vector<bool>& inner, bool keepdim) {
  const Indices position = split.outer_position();
  Indices result;
  for (size_t i = 0; i < position.size(); ++i) {
    if (keepdim || !inner[i]) result.push_back(position[i]);
  }
  return result;
}

// Sums of 16-bit floats are f32; any and all of bools are the extremes of integers.
DType reduction_dtype(DType dtype) {
  return dtype == DType::Bool ? DType::I32 : compute_dtype(dtype);
}

void lower_reduction(Lowering& lowering, const ir::Node& node) {
  const bool argument = node.op == Op::argmax || node.op == Op::argmin;
  const ir::Value* x = node.input(0);
  const auto axes = argument ? std::vector<int64_t>{node.attr<int64_t>("axis")}
                             : node.attr<std::vector<int64_t>>("axes");
  const std::vector<bool> inner = marked(x->type.rank(), axes);
  const AxisSplit split(x->type.shape, inner);
  NestBuilder builder(split.outer());
  LoopSpace space = split.inner();
  const DType dtype = reduction_dtype(x->type.dtype);
  Expr value = cast(lowering.load(x, space.indices), dtype);
  Expr result = builder.reduce(reduce_op(node.op), std::move(space.loops), std::move(value));
  if (node.op == Op::reduce_mean) {
    ir::Dim count = 1;
    for (int64_t axis : axes) count *= x->type.shape[static_cast<size_t>(axis)];
    result = apply(Op::div, {result, cast(position(count), dtype)});
  }
  if (x->type.dtype == DType::Bool && !argument) {
    // Not `!= 0`, which takes the least integer, the maximum of no elements, for true.
    result = apply(Op::gt, {result, constant_int(dtype, 0)});
  } else if (!argument) {
    result = cast(result, x->type.dtype);
  }
  const Indices at = result_position(split, inner, node.attr<bool>("keepdim"));
  builder.store({lowering.define(node.output()), {}, at, std::move(result), {}});
  lowering.emit(node, builder.finish());
}

void lower_scan(Lowering& lowering, const ir::Node& node) {
  const ir::Value* x = node.input(0);
  const AxisSplit split(x->type.shape, marked(x->type.rank(), {node.attr<int64_t>("axis")}));
  LoopSpace space = split.inner();
  NestBuilder builder(split.outer());
  const std::optional<ReduceOp> scan =
      space.loops.empty() ? std::nullopt : std::optional(reduce_op(node.op));
  Expr value = lowering.load(x, space.indices);
  builder.store({lowering.define(node.output()), std::move(space.loops), std::move(space.indices),
                 std::move(value), scan});
  lowering.emit(node, builder.finish());
}

}  // namespace

void lower_reduce(Lowering& lowering, const ir::Node& node) {
  if (ir::op_info(node.op).kind == ir::OpKind::Scan) return lower_scan(lowering, node);
  lower_reduction(lowering, node);
}

}  // namespace kiln::plan
