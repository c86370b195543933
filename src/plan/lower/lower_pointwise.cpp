// Sources and pointwise ops.
#include "ir/op_table.h"
#include "plan/lower/lowering.h"

namespace kiln::plan {

using ir::Op;

void lower_source(Lowering& lowering, const ir::Node& node) {
  const ir::Type& type = node.output()->type;
  LoopSpace space = make_loops(type.shape);
  Expr value;
  if (node.op == Op::data_size) {
    lowering.add_data_size(node);
    value = lowering.load(node.input(0), {});
  } else if (node.op == Op::full) {
    value = constant(type.dtype, node.attr<double>("value"));
  } else if (node.op == Op::dim_value) {
    value = cast(position(node.attr<ir::Dim>("value")), type.dtype);
  } else {
    const Index step(node.attr<int64_t>("step"));
    value = cast(position(node.attr<ir::Dim>("start") + space.indices[0] * step), type.dtype);
  }
  lowering.emit_pointwise(node, std::move(space), std::move(value));
}

namespace {

// The op on operands of their own dtype.
Expr apply_node(const ir::Node& node, std::vector<Expr> args) {
  if (node.op == Op::cast) return cast(args[0], node.output()->type.dtype);
  if (node.op == Op::gelu) {
    return apply_gelu(args[0], node.attr<std::string>("approximate") == "tanh");
  }
  return apply(node.op, std::move(args));
}

// The same on 16-bit operands: in f32, rounded by a cast that everything after lowering keeps.
Expr apply_rounded(const ir::Node& node, std::vector<Expr> args) {
  for (Expr& arg : args) {
    if (is_16_bit_float(arg->dtype)) arg = cast(std::move(arg), DType::F32);
  }
  return cast(apply_node(node, std::move(args)), node.output()->type.dtype);
}

}  // namespace

void lower_pointwise(Lowering& lowering, const ir::Node& node) {
  const ir::Type& type = node.output()->type;
  LoopSpace space = make_loops(type.shape);
  std::vector<Expr> args;
  for (const ir::Value* input : node.inputs) {
    args.push_back(lowering.load_broadcast(input, type.shape, space.indices));
  }
  Expr value;
  if (node.op == Op::check_index || node.op == Op::check_nonzero) {
    value = lowering.checked(node, std::move(args[0]));
  } else if (lowering.options().emulate_precision_casts && is_16_bit_float(type.dtype) &&
             ir::rounds_result(node.op)) {
    value = apply_rounded(node, std::move(args));
  } else {
    value = apply_node(node, std::move(args));
  }
  lowering.emit_pointwise(node, std::move(space), std::move(value));
}

}  // namespace kiln::plan
