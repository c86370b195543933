// One node: the family of its op decides.
#include "backends/reference/tensor.h"
#include "ir/op_table.h"
#include "support/error.h"

namespace kiln::reference {
namespace {

Literal evaluate_one(const Call& call) {
  const ir::Op op = call.node.op;
  switch (ir::op_info(op).kind) {
    case ir::OpKind::Source:
      return evaluate_source(call);
    case ir::OpKind::Unary:
    case ir::OpKind::Binary:
    case ir::OpKind::Ternary:
      return evaluate_pointwise(call);
    case ir::OpKind::Reduce:
      return evaluate_reduce(call);
    case ir::OpKind::Scan:
      return evaluate_scan(call);
    case ir::OpKind::Normalise:
      return evaluate_normalise(call);
    case ir::OpKind::Contract:
      if (op == ir::Op::attention) return evaluate_attention(call);
      return op == ir::Op::convolution ? evaluate_convolution(call) : evaluate_matmul(call);
    case ir::OpKind::Pool:
      return evaluate_pool(call);
    case ir::OpKind::Move:
      return evaluate_move(call);
    case ir::OpKind::Place:
      return evaluate_place(call);
    case ir::OpKind::Quantise:
      return evaluate_quantise(call);
    case ir::OpKind::Control:
      break;
  }
  KILN_CHECK(false, "the reference has no " + std::string(ir::op_name(op)));
  return {};
}

}  // namespace

std::vector<Literal> evaluate(const ir::Node& node, std::span<const Literal* const> inputs,
                              const SizeOf& size_of) {
  const Call call{node, inputs, size_of};
  if (ir::op_info(node.op).kind == ir::OpKind::Control) return evaluate_control(call);
  return {evaluate_one(call)};
}

}  // namespace kiln::reference
