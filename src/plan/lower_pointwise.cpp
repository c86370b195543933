// Sources and pointwise ops.
#include "plan/lowering.h"

namespace kiln::plan {

using ir::Op;

void lower_source(Lowering& lowering, const ir::Node& node) {
  const ir::Type& type = node.output()->type;
  LoopSpace space = make_loops(type.shape);
  Expr value;
  if (node.op == Op::full) {
    value = constant(type.dtype, node.attr<double>("value"));
  } else if (node.op == Op::dim_value) {
    value = cast(position(node.attr<ir::Dim>("value")), type.dtype);
  } else {
    const Index step(node.attr<int64_t>("step"));
    value = cast(position(node.attr<ir::Dim>("start") + space.indices[0] * step), type.dtype);
  }
  lowering.emit_pointwise(node, std::move(space), std::move(value));
}

void lower_pointwise(Lowering& lowering, const ir::Node& node) {
  const ir::Type& type = node.output()->type;
  LoopSpace space = make_loops(type.shape);
  std::vector<Expr> args;
  for (const ir::Value* input : node.inputs) {
    args.push_back(lowering.load_broadcast(input, type.shape, space.indices));
  }
  Expr value;
  if (node.op == Op::cast) {
    value = cast(args[0], type.dtype);
  } else if (node.op == Op::gelu) {
    value = apply_gelu(args[0], node.attr<std::string>("approximate") == "tanh");
  } else if (node.op == Op::check_index || node.op == Op::check_nonzero) {
    value = lowering.checked(node, std::move(args[0]));
  } else {
    value = apply(node.op, std::move(args));
  }
  lowering.emit_pointwise(node, std::move(space), std::move(value));
}

}  // namespace kiln::plan
