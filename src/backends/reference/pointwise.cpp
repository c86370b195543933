// Ops that are applied element by element, with operands broadcast to one shape.
#include "backends/reference/tensor.h"
#include "ir/scalar.h"

namespace kiln::reference {
namespace {

// One operand, element after element of the result's shape.
struct Operand {
  const Literal& literal;
  Walk walk;

  ir::Scalar next() {
    const ir::Scalar value = ir::element(literal, walk.offset());
    walk.next();
    return value;
  }
};

DType result_dtype(const Call& call) {
  if (call.node.op == ir::Op::cast) return call.node.attr<DType>("dtype");
  std::vector<DType> dtypes;
  for (const Literal* input : call.inputs) dtypes.push_back(input->dtype);
  return ir::result_dtype(call.node.op, dtypes);
}

}  // namespace

Literal evaluate_pointwise(const Call& call) {
  const ir::Op op = call.node.op;
  const bool gelu_tanh = op == ir::Op::gelu && call.text("approximate") == "tanh";
  Sizes shape;
  for (const Literal* input : call.inputs) shape = broadcast(shape, input->shape);
  std::vector<Operand> operands;
  for (const Literal* input : call.inputs) {
    operands.push_back({*input, Walk(shape, broadcast_strides(input->shape, shape))});
  }
  const DType dtype = result_dtype(call);
  std::byte* data = nullptr;
  Literal result = Literal::allocate(dtype, shape, &data);
  std::vector<ir::Scalar> values(operands.size());
  for (int64_t i = 0, count = result.elements(); i < count; ++i) {
    for (size_t j = 0; j < operands.size(); ++j) values[j] = operands[j].next();
    ir::set_element(
        data, i,
        op == ir::Op::cast ? ir::convert(values[0], dtype) : ir::evaluate(op, values, gelu_tanh));
  }
  return result;
}

}  // namespace kiln::reference
