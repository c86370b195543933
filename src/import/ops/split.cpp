// Parts of tensors, and tensors joined.
#include <algorithm>

#include "import/ops/common.h"

namespace kiln::import {
namespace {

using ir::Dim;

// A Python index as an offset in [0, size]: from the end if negative, clamped.
Dim clamp_index(Call& call, const Dim& index, const Dim& size) {
  if (index.is_constant() && index.constant() >= ir::kDimInfinity) return size;
  if (index.is_constant() && index.constant() <= -ir::kDimInfinity) return 0;
  Dim offset = index;
  if (index.lower_bound() < 0) {
    call.expect(index.upper_bound() < 0, "the index " + index.str(), "one whose sign is known");
    offset = index + size;
  }
  return ir::max(0, ir::min(offset, size));
}

struct Bounds {
  Dim start, size;
  int64_t step = 1;
};

Bounds slice_bounds(Call& call, const Dim& extent) {
  Bounds bounds;
  bounds.step = call.integer_or("step", 1);
  call.expect(bounds.step >= 1, "step " + std::to_string(bounds.step), "1 or more");
  bounds.start = clamp_index(call, call.dim_or("start", 0), extent);
  const Dim end = clamp_index(call, call.dim_or("end", ir::kDimInfinity), extent);
  bounds.size = ir::max(0, ir::ceildiv(end - bounds.start, bounds.step));
  return bounds;
}

Value* import_slice(Call& call) {
  Value* x = call.tensor("self");
  const int64_t axis = call.axis_or("dim", x->type.rank(), 0);
  call.expect(x->type.rank() > 0, "a scalar", "rank 1 or more");
  const Bounds bounds = slice_bounds(call, x->type.shape[axis]);
  if (bounds.step == 1) return slice(call, x, axis, bounds.start, bounds.size);
  return call.make(
      Op::slice, {x},
      {{"axis", axis}, {"start", bounds.start}, {"size", bounds.size}, {"step", bounds.step}});
}

Value* import_narrow(Call& call) {
  Value* x = call.tensor("self");
  const int64_t axis = call.axis("dim", x->type.rank());
  return slice(call, x, axis, clamp_index(call, call.dim("start"), x->type.shape[axis]),
               call.dim("length"));
}

Value* drop_axis(Call& call, Value* x, int64_t axis) {
  ir::Shape shape = x->type.shape;
  shape.erase(shape.begin() + axis);
  return call.builder().reshape(x, shape);
}

Value* select(Call& call, Value* x, int64_t axis, const Dim& index) {
  call.expect(x->type.rank() > 0, "a scalar", "rank 1 or more");
  const Dim& size = x->type.shape[axis];
  const Dim offset = index.upper_bound() < 0 ? index + size : index;
  call.expect(ir::provably_less(offset, size) && offset.lower_bound() >= 0,
              "index " + index.str() + " for size " + size.str(), "an index in bounds");
  return drop_axis(call, slice(call, x, axis, offset, 1), axis);
}

Value* import_select(Call& call) {
  Value* x = call.tensor("self");
  return select(call, x, call.axis("dim", x->type.rank()), call.dim("index"));
}

std::vector<Value*> split(Call& call, Value* x, int64_t axis, const std::vector<Dim>& sizes) {
  std::vector<Value*> result;
  Dim start = 0;
  for (const Dim& size : sizes) {
    result.push_back(slice(call, x, axis, start, size));
    start += size;
  }
  return result;
}

// Pieces of `step` elements; the last may be shorter. Their number is the node's.
std::vector<Value*> split_evenly(Call& call, Value* x, int64_t axis, const Dim& step) {
  const Dim& extent = x->type.shape[axis];
  const size_t count = call.node().output_names().size();
  std::vector<Dim> sizes;
  Dim start = 0;
  for (size_t i = 0; i < count; ++i) {
    sizes.push_back(i + 1 == count ? extent - start : step);
    start += sizes.back();
  }
  call.expect(count > 0 && sizes.back().upper_bound() >= 0, std::to_string(count) + " pieces",
              "fewer");
  return split(call, x, axis, sizes);
}

std::vector<Value*> import_split(Call& call) {
  Value* x = call.tensor("self");
  return split_evenly(call, x, call.axis_or("dim", x->type.rank(), 0), call.dim("split_size"));
}

std::vector<Value*> import_split_sizes(Call& call) {
  Value* x = call.tensor("self");
  const char* name = call.has("split_sizes") ? "split_sizes" : "split_size";
  return split(call, x, call.axis_or("dim", x->type.rank(), 0), call.dims(name));
}

std::vector<Value*> import_chunk(Call& call) {
  Value* x = call.tensor("self");
  const int64_t axis = call.axis_or("dim", x->type.rank(), 0), chunks = call.integer("chunks");
  call.expect(chunks > 0, std::to_string(chunks) + " chunks", "1 or more");
  return split_evenly(call, x, axis, ir::ceildiv(x->type.shape[axis], chunks));
}

// The first size % sections pieces are one longer.
std::vector<Value*> import_tensor_split(Call& call) {
  Value* x = call.tensor("self");
  const int64_t axis = call.axis_or("dim", x->type.rank(), 0), sections = call.integer("sections");
  const Dim& extent = x->type.shape[axis];
  call.expect(extent.is_constant() && sections > 0, "size " + extent.str(), "a constant");
  std::vector<Dim> sizes;
  for (int64_t i = 0; i < sections; ++i) {
    sizes.push_back(extent.constant() / sections + (i < extent.constant() % sections ? 1 : 0));
  }
  return split(call, x, axis, sizes);
}

std::vector<Value*> import_unbind(Call& call) {
  Value* x = call.tensor("self");
  const int64_t axis = call.axis_or("dim", x->type.rank(), 0);
  call.expect(x->type.rank() > 0 && x->type.shape[axis].is_constant(), "the type " + x->type.str(),
              "a constant size along dim " + std::to_string(axis));
  std::vector<Value*> result;
  for (int64_t i = 0; i < x->type.shape[axis].constant(); ++i)
    result.push_back(select(call, x, axis, i));
  return result;
}

Value* concat(Call& call, const std::vector<Value*>& parts, int64_t axis) {
  return parts.size() == 1 ? parts[0] : call.make(Op::concat, parts, {{"axis", axis}});
}

// In one dtype; empty rank-1 tensors do not count, as in PyTorch.
std::vector<Value*> joinable(Call& call) {
  std::vector<Operand> operands;
  for (Value* part : call.tensors("tensors")) {
    const bool nothing = part->type.rank() == 1 && part->type.shape[0].is_constant(0);
    if (!nothing) operands.push_back(part);
  }
  if (operands.empty()) operands.push_back(call.tensors("tensors").at(0));
  const DType dtype = result_type(operands);
  std::vector<Value*> parts;
  for (const Operand& operand : operands)
    parts.push_back(call.builder().cast(operand.tensor, dtype));
  return parts;
}

Value* import_cat(Call& call) {
  const std::vector<Value*> parts = joinable(call);
  return concat(call, parts, call.axis_or("dim", parts[0]->type.rank(), 0));
}

// At least `rank` axes: in front, and the third behind.
Value* raise_rank(Call& call, Value* x, size_t rank) {
  ir::Shape shape = x->type.shape;
  if (shape.empty()) shape.push_back(1);
  if (rank >= 2 && shape.size() == 1) shape.insert(shape.begin(), Dim(1));
  if (rank >= 3 && shape.size() == 2) shape.push_back(1);
  return call.builder().reshape(x, shape);
}

template <size_t rank>
Value* import_atleast(Call& call) {
  return raise_rank(call, call.tensor("self"), rank);
}

// hstack joins vectors along their only axis and all else along the second.
Value* import_hstack(Call& call) {
  std::vector<Value*> parts = joinable(call);
  for (Value*& part : parts) part = raise_rank(call, part, 1);
  return concat(call, parts, parts[0]->type.rank() == 1 ? 0 : 1);
}

template <int64_t axis>
Value* import_stack_along(Call& call) {
  std::vector<Value*> parts = joinable(call);
  for (Value*& part : parts) part = raise_rank(call, part, axis == 0 ? 2 : 3);
  return concat(call, parts, axis);
}

// Vectors become columns.
Value* import_column_stack(Call& call) {
  std::vector<Value*> parts = joinable(call);
  for (Value*& part : parts) {
    if (part->type.rank() <= 1) part = call.builder().reshape(part, {part->type.elements(), 1});
  }
  return concat(call, parts, 1);
}

Value* import_stack(Call& call) {
  std::vector<Value*> parts = joinable(call);
  const int64_t axis = call.axis_or("dim", parts[0]->type.rank() + 1, 0);
  for (Value*& part : parts) part = unsqueeze(call, part, axis);
  return concat(call, parts, axis);
}

// self with the elements of a slice replaced by src: what is before, src, what is after.
Value* replace_range(Call& call, Value* x, Value* source, int64_t axis, const Dim& start) {
  const Dim size = source->type.shape[axis], rest = x->type.shape[axis] - start - size;
  std::vector<Value*> parts;
  if (!start.is_constant(0)) parts.push_back(slice(call, x, axis, 0, start));
  parts.push_back(call.builder().cast(source, x->type.dtype));
  if (!rest.is_constant(0)) parts.push_back(slice(call, x, axis, start + size, rest));
  return concat(call, parts, axis);
}

// x with `step - 1` gaps behind each element of the axis, and what fits around them: `start` elements in front, `size`
// in all. The gaps are zeros.
Value* spread(Call& call, Value* x, int64_t axis, const Bounds& bounds, const Dim& size) {
  const auto padded = [&](Value* value, int64_t at, const Dim& before, const Dim& after) {
    ir::Shape front(value->type.rank(), 0), back(value->type.rank(), 0);
    front[at] = before;
    back[at] = after;
    return pad_constant(call, value, front, back);
  };
  Value* gaps = padded(unsqueeze(call, x, axis + 1), axis + 1, 0, bounds.step - 1);
  ir::Shape shape = x->type.shape;
  shape[axis] *= bounds.step;
  // The last gap may reach beyond the end: a negative size crops it.
  return padded(call.builder().reshape(gaps, shape), axis, bounds.start,
                size - bounds.start - shape[axis]);
}

Value* import_slice_scatter(Call& call) {
  Value *x = call.tensor("self"), *source = call.tensor("src");
  const int64_t axis = call.axis_or("dim", x->type.rank(), 0);
  const Bounds bounds = slice_bounds(call, x->type.shape[axis]);
  ir::Shape shape = x->type.shape;
  shape[axis] = bounds.size;
  source = call.builder().expand(source, shape);
  if (bounds.step == 1) return replace_range(call, x, source, axis, bounds.start);
  const Dim& size = x->type.shape[axis];
  ir::Attrs all{{"shape", shape}, {"dtype", DType::Bool}, {"value", 1.0}};
  const Expr is_replaced(call, spread(call, call.make(Op::full, {}, all), axis, bounds, size));
  const Expr placed(call,
                    spread(call, call.builder().cast(source, x->type.dtype), axis, bounds, size));
  return is_replaced.select(placed, {call, x});
}

Value* import_select_scatter(Call& call) {
  Value *x = call.tensor("self"), *source = call.tensor("src");
  const int64_t axis = call.axis("dim", x->type.rank());
  const Dim index = call.dim("index");
  const Dim start = index.upper_bound() < 0 ? index + x->type.shape[axis] : index;
  return replace_range(call, x, unsqueeze(call, source, axis), axis, start);
}

constexpr Row kRows[] = {
    {"aten.slice.Tensor", import_slice},
    {"aten.slice_copy.Tensor", import_slice},
    {"aten.narrow.default", import_narrow},
    {"aten.select.int", import_select},
    {"aten.select_copy.int", import_select},
    {"aten.split.Tensor", import_split},
    {"aten.split.sizes", import_split_sizes},
    {"aten.split_with_sizes.default", import_split_sizes},
    {"aten.split_with_sizes_copy.default", import_split_sizes},
    {"aten.split_copy.Tensor", import_split},
    {"aten.chunk.default", import_chunk},
    {"aten.tensor_split.sections", import_tensor_split},
    {"aten.unbind.int", import_unbind},
    {"aten.unbind_copy.int", import_unbind},
    {"aten.cat.default", import_cat},
    {"aten.concat.default", import_cat},
    {"aten.concatenate.default", import_cat},
    {"aten.stack.default", import_stack},
    {"aten.hstack.default", import_hstack},
    {"aten.vstack.default", import_stack_along<0>},
    {"aten.dstack.default", import_stack_along<2>},
    {"aten.column_stack.default", import_column_stack},
    {"aten.atleast_1d.default", import_atleast<1>},
    {"aten.atleast_2d.default", import_atleast<2>},
    {"aten.atleast_3d.default", import_atleast<3>},
    {"aten.slice_scatter.default", import_slice_scatter},
    {"aten.select_scatter.default", import_select_scatter},
};

}  // namespace

Rows split_rows() { return kRows; }

}  // namespace kiln::import
