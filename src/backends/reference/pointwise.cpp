// Ops that are applied element by element, with operands broadcast to one shape.
#include "backends/reference/tensor.h"
#include "ir/scalar.h"
#include "support/error.h"

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

[[noreturn]] void fail_check(const Call& call, const std::string& got,
                             const std::string& expected) {
  throw CompileError("[" + call.text("operator") + "] got " + got + ", expected " + expected);
}

// What check_index and check_nonzero ask of one element.
void check_element(const Call& call, int64_t value) {
  if (call.node.op == ir::Op::check_nonzero) {
    if (value != 0) return;
    if (call.node.has_attr("fault"))
      throw CompileError("[" + call.text("operator") + "] " + call.text("fault"));
    fail_check(call, "a division of integers by zero", "a divisor that is not 0");
  }
  const int64_t size = call.dim("size"), least = call.flag("negative") ? -size : 0;
  if (value >= least && value < size) return;
  fail_check(call, "the index " + std::to_string(value),
             std::to_string(least) + " <= index < " + std::to_string(size));
}

}  // namespace

Literal evaluate_pointwise(const Call& call) {
  const ir::Op op = call.node.op;
  const bool checks = op == ir::Op::check_index || op == ir::Op::check_nonzero;
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
    if (checks) check_element(call, values[0].integer);
    ir::set_element(
        data, i,
        op == ir::Op::cast ? ir::convert(values[0], dtype) : ir::evaluate(op, values, gelu_tanh));
  }
  return result;
}

}  // namespace kiln::reference
