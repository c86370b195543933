// Makes nodes with inferred types.
#pragma once

#include <vector>

#include "ir/graph.h"
#include "support/error.h"

namespace kiln::ir {

// Output types of an op for given operands; CompileError "[op] got X, expected Y" where the
// operands do not fit. One file per op family: ir/infer_*.cpp.
std::vector<Type> infer_types(Op op, const std::vector<Value*>& inputs, const Attrs& attrs);

// A requirement that no run can meet: sizes for which the operator has no result.
class UnmetRequirement : public CompileError {
 public:
  using CompileError::CompileError;
};

// Appends to a graph, or inserts before a node.
class Builder {
 public:
  explicit Builder(Graph& graph, Node* before = nullptr) : graph_(graph), before_(before) {}

  Graph& graph() const { return graph_; }
  // Location given to the nodes that follow.
  void set_location(SourceLocation location) { location_ = std::move(location); }
  Node* node(Op op, std::vector<Value*> inputs, Attrs attrs = {});
  Value* value(Op op, std::vector<Value*> inputs, Attrs attrs = {}) {
    return node(op, std::move(inputs), std::move(attrs))->output();
  }

  Value* constant(Literal literal);
  Value* scalar(DType dtype, double value);  // rank 0 constant, also for integers and bool
  Value* cast(Value* x, DType dtype);        // x itself if it has the dtype
  Value* reshape(Value* x, Shape shape);
  Value* permute(Value* x, std::vector<int64_t> axes);
  Value* expand(Value* x, Shape shape);

  // Adds a requirement unless it is provably fulfilled or there already; CompileError if it
  // provably never is.
  void require(Requirement requirement);

 private:
  Graph& graph_;
  Node* before_;
  SourceLocation location_;
};

// NumPy broadcasting of symbolic shapes; CompileError if they provably differ or cannot be proven
// to agree.
Shape broadcast_shapes(const Shape& a, const Shape& b);

}  // namespace kiln::ir
