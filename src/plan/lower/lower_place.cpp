// Sorting, and writing by index.
#include "plan/lower/lowering.h"
#include "support/error.h"

namespace kiln::plan {
namespace {

// The axes of a shape in front of one and behind it, each with a loop unless it has size 1.
struct Around {
  LoopSpace outer, inner;

  Around(const ir::Shape& shape, size_t axis)
      : outer(make_loops({shape.begin(), shape.begin() + static_cast<std::ptrdiff_t>(axis)}, "b")),
        inner(make_loops({shape.begin() + static_cast<std::ptrdiff_t>(axis) + 1, shape.end()},
                         "j")) {}
  Indices at(const Index& position) const {
    Indices result = outer.indices;
    result.push_back(position);
    result.insert(result.end(), inner.indices.begin(), inner.indices.end());
    return result;
  }
};

void lower_argsort(Lowering& lowering, const ir::Node& node) {
  const ir::Value* x = node.input(0);
  const auto axis = static_cast<size_t>(node.attr<int64_t>("axis"));
  const Around around(x->type.shape, axis);
  Sort sort;
  sort.outer = with_loops(around.outer.loops, around.inner.loops);
  sort.element = make_loop("i", x->type.shape[axis]);
  sort.place = make_loop("place", node.attr<ir::Dim>("count"));
  sort.key = lowering.load(x, around.at(sort.element.index));
  if (sort.key->dtype == DType::Bool) sort.key = cast(sort.key, DType::U8);
  sort.descending = node.attr<bool>("descending");
  sort.out = lowering.dense_view(lowering.define(node.output()), node.output()->type.shape,
                                 around.at(sort.place.index), with_loops(sort.outer, {sort.place}));
  lowering.emit(node, std::move(sort));
}

std::optional<ReduceOp> combination(const std::string& name) {
  if (name == "sum") return ReduceOp::Sum;
  if (name == "prod") return ReduceOp::Prod;
  if (name == "max") return ReduceOp::Max;
  if (name == "min") return ReduceOp::Min;
  return std::nullopt;
}

void lower_scatter(Lowering& lowering, const ir::Node& node) {
  const ir::Value *x = node.input(0), *index = node.input(1);
  const ir::Shape& shape = x->type.shape;
  const auto axis = static_cast<size_t>(node.attr<int64_t>("axis"));
  const Around around(shape, axis);
  Scatter scatter;
  scatter.outer = around.outer.loops;
  scatter.inner = around.inner.loops;
  scatter.position = make_loop("position", shape[axis]);
  scatter.write = make_loop("write", index->type.shape[axis]);
  scatter.initial = lowering.load(x, around.at(scatter.position.index));
  ir::Shape written = shape;
  written[axis] = index->type.shape[axis];
  const Indices at = around.at(scatter.write.index);
  scatter.index = lowering.load_broadcast(index, written, at);
  scatter.value = lowering.load_broadcast(node.input(2), written, at);
  scatter.combine = combination(node.attr<std::string>("combine"));
  scatter.out =
      lowering.dense_view(lowering.define(node.output()), shape, around.at(scatter.position.index),
                          with_loops(with_loops(scatter.outer, {scatter.position}), scatter.inner));
  lowering.emit(node, std::move(scatter));
}

}  // namespace

void lower_place(Lowering& lowering, const ir::Node& node) {
  if (!lowering.traits().places)
    throw CompileError(
        "[" + std::string(op_name(node.op)) +
        "] got a target without kernels that sort and scatter, expected the CPU or CUDA");
  if (node.op == ir::Op::argsort) return lower_argsort(lowering, node);
  lower_scatter(lowering, node);
}

}  // namespace kiln::plan
