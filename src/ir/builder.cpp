#include "ir/builder.h"

#include "support/error.h"

namespace kiln::ir {

Node* Builder::node(Op op, std::vector<Value*> inputs, Attrs attrs) {
  std::vector<Type> types = infer_types(op, inputs, attrs);
  Node* result =
      graph_.add_node(op, std::move(inputs), std::move(attrs), std::move(types), before_);
  result->location = location_;
  return result;
}

Value* Builder::constant(Literal literal) {
  return value(Op::constant, {}, {{"value", std::move(literal)}});
}

Value* Builder::scalar(DType dtype, double value) {
  return constant(Literal::scalar(dtype, value));
}

Value* Builder::cast(Value* x, DType dtype) {
  if (x->type.dtype == dtype) return x;
  return value(Op::cast, {x}, {{"dtype", dtype}});
}

Value* Builder::reshape(Value* x, Shape shape) {
  if (x->type.shape == shape) return x;
  return value(Op::reshape, {x}, {{"shape", std::move(shape)}});
}

Value* Builder::permute(Value* x, std::vector<int64_t> axes) {
  return value(Op::permute, {x}, {{"axes", std::move(axes)}});
}

Value* Builder::expand(Value* x, Shape shape) {
  if (x->type.shape == shape) return x;
  return value(Op::expand, {x}, {{"shape", std::move(shape)}});
}

void Builder::require(Requirement requirement) {
  const int64_t low = requirement.condition.lower_bound();
  const int64_t high = requirement.condition.upper_bound();
  if (low > 0 || high < 0) return;
  if (low == 0 && high == 0) {
    const std::string who = requirement.operation.empty() ? "size" : requirement.operation;
    throw UnmetRequirement("[" + who + "] got sizes that never fit, expected " +
                           requirement.expected);
  }
  for (const Requirement& known : graph_.requirements)
    if (known.condition == requirement.condition && known.operation == requirement.operation)
      return;
  graph_.requirements.push_back(std::move(requirement));
}

}  // namespace kiln::ir
