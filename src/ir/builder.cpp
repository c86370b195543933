#include "ir/builder.h"

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

}  // namespace kiln::ir
