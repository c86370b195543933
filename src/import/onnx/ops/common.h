// What the operator families of ONNX share.
#pragma once

#include "import/onnx/registry.h"
#include "ir/scalar.h"

namespace kiln::import::onnx {

// A function of floating operands, composed of several ops: 16-bit floats are computed in f32 and
// rounded once.
template <typename Function>
Value* composed(NodeCall& call, Value* x, const Function& function) {
  const DType dtype = x->type.dtype;
  const Expr wide = call.expr(call.builder().cast(x, compute_dtype(dtype)));
  return call.builder().cast(function(wide), dtype);
}

inline int64_t rank_of(const Value* value) { return static_cast<int64_t>(value->type.rank()); }

inline int64_t known_size(NodeCall& call, const Dim& size, const std::string& what) {
  call.expect(size.is_constant(), "the symbolic size " + size.str() + " for " + what,
              "a constant (give the input a fixed size)");
  return size.constant();
}

// The sizes of the axes after batch and channels.
inline Shape spatial_sizes(const Value* x) {
  return {x->type.shape.begin() + 2, x->type.shape.end()};
}

// A vector that belongs to an axis of a tensor of that rank, shaped to broadcast.
inline Value* along_axis(NodeCall& call, Value* vector, size_t rank, int64_t axis) {
  Shape shape(rank, Dim(1));
  shape[static_cast<size_t>(axis)] = vector->type.elements();
  return call.builder().reshape(vector, shape);
}

inline Value* concat(NodeCall& call, std::vector<Value*> parts, int64_t axis) {
  if (parts.size() == 1) return parts[0];
  return call.make(Op::concat, std::move(parts), {{"axis", axis}});
}

// Elements `size` from `start` on, `step` apart; in bounds.
inline Value* strided(NodeCall& call, Value* x, int64_t axis, Dim start, Dim size, int64_t step) {
  if (step == 1) return slice(call.call(), x, axis, std::move(start), std::move(size));
  return call.make(
      Op::slice, {x},
      {{"axis", axis}, {"start", std::move(start)}, {"size", std::move(size)}, {"step", step}});
}

inline Value* pad_with(NodeCall& call, Value* x, std::vector<Dim> before, std::vector<Dim> after,
                       double value, const std::string& mode = "constant") {
  return call.make(Op::pad, {x},
                   {{"before", std::move(before)},
                    {"after", std::move(after)},
                    {"value", ir::held_number(x->type.dtype, value)},
                    {"mode", mode}});
}

inline Value* full(NodeCall& call, Shape shape, DType dtype, double value) {
  return call.make(
      Op::full, {},
      {{"shape", std::move(shape)}, {"dtype", dtype}, {"value", ir::held_number(dtype, value)}});
}

// Padding of windows along each spatial axis, from pads or auto_pad.
struct Window {
  std::vector<int64_t> kernel, stride, before, after, dilation;
};
// strides, dilations, pads and auto_pad of a convolution or pool over axes of these sizes.
Window read_window(NodeCall& call, std::vector<int64_t> kernel, const Shape& sizes);

// Rows of an axis selected by known numbers.
inline Value* take(NodeCall& call, Value* x, int64_t axis, const std::vector<int64_t>& indices) {
  return call.make(Op::gather, {x, call.integer_constant(indices)}, {{"axis", axis}});
}

// Rows of a table at positions that the run finds, and that end it where there is none.
inline Value* rows_at(NodeCall& call, Value* table, Value* positions) {
  call.expect(table->type.rank() == 2, "a table of shape " + shape_text(table->type.shape),
              "rank 2");
  Value* index =
      checked_index(call.call(), positions, table->type.shape[0], false, call.node().op_type);
  return call.make(Op::gather, {table, index}, {{"axis", int64_t{0}}});
}

}  // namespace kiln::import::onnx
