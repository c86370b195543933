// Data movement. Views make no kernel; pad, concat and the gathers do.
#include <algorithm>

#include "ir/op_table.h"
#include "plan/lower/lowering.h"
#include "support/error.h"

namespace kiln::plan {
namespace {

using ir::Op;

Indices permute_indices(const ir::Node& node, const Indices& at) {
  const auto& axes = node.attr<std::vector<int64_t>>("axes");
  Indices result(at.size());
  for (size_t i = 0; i < axes.size(); ++i) result[static_cast<size_t>(axes[i])] = at[i];
  return result;
}

Indices expand_indices(const ir::Node& node, const Indices& at) {
  const ir::Shape& from = node.input(0)->type.shape;
  Indices result(at.end() - static_cast<std::ptrdiff_t>(from.size()), at.end());
  for (size_t i = 0; i < from.size(); ++i) {
    if (from[i].is_constant(1)) result[i] = 0;
  }
  return result;
}

Indices slice_indices(const ir::Node& node, Indices at) {
  Index& index = at[static_cast<size_t>(node.attr<int64_t>("axis"))];
  index = node.attr<ir::Dim>("start") + index * Index(node.attr<int64_t>("step"));
  return at;
}

Indices flip_indices(const ir::Node& node, Indices at) {
  for (int64_t axis : node.attr<std::vector<int64_t>>("axes")) {
    const auto i = static_cast<size_t>(axis);
    at[i] = node.output()->type.shape[i] - 1 - at[i];
  }
  return at;
}

// An index that is data, kept inside [0, size): negative ones count from the end, others are
// clamped.
Expr safe_index(const Expr& index, const ir::Dim& size) {
  const Expr zero = position(0);
  const Expr wrapped = apply(
      Op::where, {apply(Op::lt, {index, zero}), apply(Op::add, {index, position(size)}), index});
  return apply(Op::minimum, {apply(Op::maximum, {wrapped, zero}), position(size - 1)});
}

// Where padded position `index` of an axis reads, for the modes that repeat elements.
Expr mirrored_index(const Index& index, const ir::Dim& size, bool reflect) {
  const Expr i = position(index), zero = position(0), last = position(size - 1);
  Expr inside = i;
  if (reflect) {
    const Expr from_end = apply(Op::sub, {apply(Op::add, {last, last}), i});
    inside = apply(Op::where, {apply(Op::lt, {i, zero}), apply(Op::neg, {i}),
                               apply(Op::where, {apply(Op::gt, {i, last}), from_end, i})});
  }
  return apply(Op::minimum, {apply(Op::maximum, {inside, zero}), last});
}

void lower_constant_pad(Lowering& lowering, const ir::Node& node, LoopSpace space,
                        const Indices& source) {
  const ir::Value* x = node.input(0);
  Expr inside;
  for (size_t i = 0; i < source.size(); ++i) {
    const Expr index = position(source[i]);
    inside = logical_and(inside, apply(Op::ge, {index, position(0)}));
    inside = logical_and(inside, apply(Op::lt, {index, position(x->type.shape[i])}));
  }
  Expr value = lowering.load(x, source, inside);
  if (inside) {
    value = apply(Op::where, {inside, value, constant(x->type.dtype, node.attr<double>("value"))});
  }
  lowering.emit_pointwise(node, std::move(space), std::move(value));
}

void lower_pad(Lowering& lowering, const ir::Node& node) {
  const ir::Value* x = node.input(0);
  const auto& before = node.attr<std::vector<ir::Dim>>("before");
  LoopSpace space = make_loops(node.output()->type.shape);
  Indices source;
  for (size_t i = 0; i < before.size(); ++i) source.push_back(space.indices[i] - before[i]);
  const std::string& mode = node.attr<std::string>("mode");
  if (mode == "constant") return lower_constant_pad(lowering, node, std::move(space), source);
  std::vector<Expr> at;
  for (size_t i = 0; i < source.size(); ++i) {
    at.push_back(mirrored_index(source[i], x->type.shape[i], mode == "reflect"));
  }
  lowering.emit_pointwise(node, std::move(space), lowering.load_gathered(x, std::move(at)));
}

// A value joined with itself is read again and again.
void lower_repeat(Lowering& lowering, const ir::Node& node, size_t axis) {
  const ir::Value* x = node.input(0);
  LoopSpace space = make_loops(node.output()->type.shape);
  Indices at = space.indices;
  const ir::Dim& size = x->type.shape[axis];
  if (!size.is_constant(0)) at[axis] = ir::mod(at[axis], size);
  lowering.emit_pointwise(node, std::move(space), lowering.load(x, at));
}

// Stores of one kernel. Passes and code generators look through a whole kernel for each of its operands, so that
// their time would grow with the square of this.
constexpr size_t kMostPieces = 64;

// One Store for each operand from `first` on, at its offset along the axis, which is moved past them.
LoopNest concat_nest(Lowering& lowering, const ir::Node& node, BufferId target, size_t first,
                     ir::Dim& offset) {
  const auto axis = static_cast<size_t>(node.attr<int64_t>("axis"));
  std::vector<bool> inner(node.output()->type.rank());
  for (size_t i = axis; i < inner.size(); ++i) inner[i] = true;
  const AxisSplit lead(node.output()->type.shape, inner);
  NestBuilder builder(lead.outer());
  for (size_t k = first; k < std::min(first + kMostPieces, node.inputs.size()); ++k) {
    const ir::Value* input = node.inputs[k];
    ir::Shape shape = input->type.shape;
    for (size_t i = 0; i < axis; ++i) shape[i] = 1;
    LoopSpace space = make_loops(shape, "j");
    for (size_t i = 0; i < axis; ++i) space.indices[i] = lead.outer_position()[i];
    Expr value = lowering.load(input, space.indices);
    space.indices[axis] += offset;
    builder.store({target, std::move(space.loops), std::move(space.indices), std::move(value), {}});
    offset += input->type.shape[axis];
  }
  return builder.finish();
}

void lower_concat(Lowering& lowering, const ir::Node& node) {
  const bool repeats =
      std::ranges::all_of(node.inputs, [&](const ir::Value* v) { return v == node.input(0); });
  if (repeats) return lower_repeat(lowering, node, static_cast<size_t>(node.attr<int64_t>("axis")));
  const BufferId target = lowering.define(node.output());
  ir::Dim offset;
  for (size_t first = 0; first < node.inputs.size(); first += kMostPieces)
    lowering.emit(node, concat_nest(lowering, node, target, first, offset));
}

void lower_gather_elements(Lowering& lowering, const ir::Node& node) {
  const auto axis = static_cast<size_t>(node.attr<int64_t>("axis"));
  const ir::Value* x = node.input(0);
  LoopSpace space = make_loops(node.output()->type.shape);
  std::vector<Expr> at;
  for (const Index& index : space.indices) at.push_back(position(index));
  at[axis] = safe_index(lowering.load(node.input(1), space.indices), x->type.shape[axis]);
  lowering.emit_pointwise(node, std::move(space), lowering.load_gathered(x, std::move(at)));
}

// gather is gather_nd with one index.
void lower_gather(Lowering& lowering, const ir::Node& node) {
  const auto axis = static_cast<size_t>(node.attr<int64_t>("axis"));
  const ir::Value* x = node.input(0);
  const ir::Shape& shape = node.output()->type.shape;
  const size_t count = node.inputs.size() - 1;
  const size_t index_rank = shape.size() + count - x->type.rank();
  LoopSpace space = make_loops(shape);
  const auto part = [](const auto& values, size_t begin, size_t end) {
    return std::decay_t<decltype(values)>(values.begin() + static_cast<std::ptrdiff_t>(begin),
                                          values.begin() + static_cast<std::ptrdiff_t>(end));
  };
  const ir::Shape index_shape = part(shape, axis, axis + index_rank);
  const Indices index_at = part(space.indices, axis, axis + index_rank);
  std::vector<Expr> at;
  for (size_t i = 0; i < axis; ++i) at.push_back(position(space.indices[i]));
  for (size_t i = 0; i < count; ++i) {
    const Expr index = lowering.load_broadcast(node.input(1 + i), index_shape, index_at);
    at.push_back(safe_index(index, x->type.shape[axis + i]));
  }
  for (size_t i = axis + index_rank; i < shape.size(); ++i)
    at.push_back(position(space.indices[i]));
  lowering.emit_pointwise(node, std::move(space), lowering.load_gathered(x, std::move(at)));
}

}  // namespace

bool is_view(ir::Op op) { return ir::op_info(op).view; }

Indices view_indices(const ir::Node& node, const Indices& at) {
  switch (node.op) {
    case Op::reshape:
      return reshape_indices(node.input(0)->type.shape, node.output()->type.shape, at);
    case Op::permute:
      return permute_indices(node, at);
    case Op::expand:
      return expand_indices(node, at);
    case Op::slice:
      return slice_indices(node, at);
    case Op::flip:
      return flip_indices(node, at);
    default:
      break;
  }
  throw InternalError("[" + std::string(op_name(node.op)) + "] is not a view");
}

void lower_move(Lowering& lowering, const ir::Node& node) {
  switch (node.op) {
    case Op::pad:
      return lower_pad(lowering, node);
    case Op::concat:
      return lower_concat(lowering, node);
    case Op::gather:
    case Op::gather_nd:
      return lower_gather(lowering, node);
    case Op::gather_elements:
      return lower_gather_elements(lowering, node);
    default:
      break;
  }
  throw CompileError("[" + std::string(op_name(node.op)) + "] has no lowering");
}

}  // namespace kiln::plan
