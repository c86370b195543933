// Shapes: the same elements in another shape or order, parts of tensors, and tensors joined.
#include <algorithm>
#include <numeric>

#include "import/onnx/ops/common.h"

namespace kiln::import::onnx {
namespace {

// 0 stands for the input's size, -1 for what is left.
Value* import_reshape(NodeCall& call) {
  Value* x = call.input(0);
  Shape shape;
  if (call.has_input(1))
    shape = call.dims(1);
  else
    for (const int64_t size : call.integers_or("shape", {})) shape.emplace_back(size);
  const bool keeps_zeros = call.flag_or("allowzero", false);
  for (size_t i = 0; i < shape.size(); ++i) {
    if (keeps_zeros || !shape[i].is_constant(0)) continue;
    call.expect(i < x->type.rank(), "0 for axis " + std::to_string(i),
                "an axis that the input has: " + shape_text(x->type.shape));
    shape[i] = x->type.shape[i];
  }
  return call.aten("aten.view.default", {{"self", x}, {"size", shape}});
}

Value* import_flatten(NodeCall& call) {
  Value* x = call.input(0);
  const int64_t given = call.integer_or("axis", 1), rank = rank_of(x);
  call.expect(given >= -rank && given <= rank, "axis " + std::to_string(given),
              "-" + std::to_string(rank) + " to " + std::to_string(rank));
  const auto split = x->type.shape.begin() + (given < 0 ? given + rank : given);
  return call.builder().reshape(
      x, {ir::product({x->type.shape.begin(), split}), ir::product({split, x->type.shape.end()})});
}

Value* import_transpose(NodeCall& call) {
  Value* x = call.input(0);
  std::vector<int64_t> order = range(0, rank_of(x));
  std::ranges::reverse(order);
  order = call.integers_or("perm", order);
  call.expect(order.size() == x->type.rank(), std::to_string(order.size()) + " axes in perm",
              std::to_string(x->type.rank()));
  for (int64_t& axis : order) axis = call.axis(axis, x->type.rank());
  return call.builder().permute(x, order);
}

Value* import_squeeze(NodeCall& call) {
  Value* x = call.input(0);
  const auto given = call.list(1, "axes");
  std::vector<int64_t> axes;
  if (given) {
    axes = call.axes(*given, x->type.rank());
  } else {
    for (int64_t i = 0; i < rank_of(x); ++i)
      if (x->type.shape[static_cast<size_t>(i)].is_constant(1)) axes.push_back(i);
  }
  Shape shape;
  for (int64_t i = 0; i < rank_of(x); ++i) {
    const Dim& size = x->type.shape[static_cast<size_t>(i)];
    if (std::ranges::find(axes, i) == axes.end())
      shape.push_back(size);
    else
      call.expect(size.is_constant(1), "axis " + std::to_string(i) + " of size " + size.str(), "1");
  }
  return call.builder().reshape(x, shape);
}

Value* import_unsqueeze(NodeCall& call) {
  Value* x = call.input(0);
  const auto given = call.list(1, "axes");
  call.expect(given.has_value(), "no axes", "some");
  Shape shape = x->type.shape;
  for (const int64_t axis : call.axes(*given, x->type.rank() + given->size()))
    shape.insert(shape.begin() + axis, Dim(1));
  return call.builder().reshape(x, shape);
}

// Both ways: a size of 1 in the shape keeps the input's.
Value* import_expand(NodeCall& call) {
  Value* x = call.input(0);
  return call.builder().expand(x, ir::broadcast_shapes(x->type.shape, call.dims(1)));
}

Value* import_tile(NodeCall& call) {
  Value* x = call.input(0);
  const std::vector<Dim> repeats = call.dims(1);
  call.expect(repeats.size() == x->type.rank(), std::to_string(repeats.size()) + " repeats",
              std::to_string(x->type.rank()));
  return call.aten("aten.repeat.default", {{"self", x}, {"repeats", repeats}});
}

Value* import_concat(NodeCall& call) {
  const std::vector<Value*> parts = call.inputs();
  call.expect(!parts.empty(), "no inputs", "one or more");
  return concat(call, parts, call.axis(call.integer("axis"), parts[0]->type.rank()));
}

// Of sizes or in equal parts, of which the last may be smaller.
std::vector<Value*> import_split(NodeCall& call) {
  Value* x = call.input(0);
  const int64_t axis = call.axis(call.integer_or("axis", 0), x->type.rank());
  const Dim size = x->type.shape[static_cast<size_t>(axis)];
  std::vector<Dim> sizes;
  if (call.has_input(1)) {
    sizes = call.dims(1);
  } else if (call.has("split")) {
    for (const int64_t part : call.integers_or("split", {})) sizes.emplace_back(part);
  } else {
    const auto count = static_cast<int64_t>(call.output_count());
    const int64_t parts = call.integer_or("num_outputs", count);
    call.expect(parts == count, std::to_string(parts) + " num_outputs", std::to_string(count));
    const Dim each = ir::ceildiv(size, count);
    for (int64_t i = 0; i < count; ++i) sizes.push_back(i + 1 < count ? each : size - each * i);
  }
  Dim start = 0;
  std::vector<Value*> results;
  for (const Dim& part : sizes) {
    call.expect(part.lower_bound() >= 0, "a part of size " + part.str(), "0 or more");
    results.push_back(slice(call.call(), x, axis, start, part));
    start += part;
  }
  call.expect(ir::provably_equal(start, size), "parts of " + start.str() + " in all",
              "the size, " + size.str());
  return results;
}

// An index from either end, between `low` and `high`.
Dim clamp_index(NodeCall& call, const Dim& index, const Dim& size, const Dim& low,
                const Dim& high) {
  if (index.is_constant() && index.constant() >= ir::kDimInfinity) return high;
  if (index.is_constant() && index.constant() <= -ir::kDimInfinity) return low;
  Dim offset = index;
  if (index.lower_bound() < 0) {
    call.expect(index.upper_bound() < 0, "the index " + index.str(), "one whose sign is known");
    offset = index + size;
  }
  return ir::max(low, ir::min(offset, high));
}

Value* slice_axis(NodeCall& call, Value* x, int64_t axis, const Dim& start, const Dim& end,
                  int64_t step) {
  call.expect(step != 0, "step 0", "another");
  const Dim size = x->type.shape[static_cast<size_t>(axis)];
  if (step > 0) {
    const Dim first = clamp_index(call, start, size, 0, size);
    const Dim count = ir::ceildiv(clamp_index(call, end, size, 0, size) - first, step);
    return strided(call, x, axis, first, ir::max(0, count), step);
  }
  call.expect(step > -ir::kDimInfinity, "step " + std::to_string(step), "a smaller one");
  // Backwards: the same of the reversed axis.
  const Dim first = clamp_index(call, start, size, 0, size - 1);
  const Dim last = clamp_index(call, end, size, -1, size - 1);
  const Dim count = ir::max(0, ir::ceildiv(first - last, -step));
  Value* reversed = call.make(Op::flip, {x}, {{"axes", std::vector<int64_t>{axis}}});
  return strided(call, reversed, axis, size - 1 - first, count, -step);
}

struct SliceArguments {
  std::vector<Dim> starts, ends;
  std::vector<int64_t> axes, steps;
};

// Attributes before version 10.
SliceArguments read_slice(NodeCall& call) {
  SliceArguments result;
  if (call.version() < 10) {
    for (const int64_t start : call.integers_or("starts", {})) result.starts.emplace_back(start);
    for (const int64_t end : call.integers_or("ends", {})) result.ends.emplace_back(end);
    result.axes = call.integers_or("axes", {});
  } else {
    result.starts = call.dims(1);
    result.ends = call.dims(2);
    if (call.has_input(3)) result.axes = call.integers(3);
    if (call.has_input(4)) result.steps = call.integers(4);
  }
  if (result.axes.empty()) result.axes = range(0, static_cast<int64_t>(result.starts.size()));
  if (result.steps.empty()) result.steps.assign(result.starts.size(), 1);
  call.expect(result.ends.size() == result.starts.size() &&
                  result.axes.size() == result.starts.size() &&
                  result.steps.size() == result.starts.size(),
              "starts, ends, axes and steps of different lengths", "equal ones");
  return result;
}

Value* import_slice(NodeCall& call) {
  Value* x = call.input(0);
  const SliceArguments arguments = read_slice(call);
  const size_t rank = x->type.rank();
  call.axes(arguments.axes, rank);
  for (size_t i = 0; i < arguments.axes.size(); ++i)
    x = slice_axis(call, x, call.axis(arguments.axes[i], rank), arguments.starts[i],
                   arguments.ends[i], arguments.steps[i]);
  return x;
}

// Sizes before and after each axis.
struct Padding {
  std::vector<Dim> before, after;
};

Padding read_pads(NodeCall& call, size_t rank) {
  std::vector<Dim> pads;
  if (call.version() < 11)
    for (const int64_t size : call.integers_or("pads", {})) pads.emplace_back(size);
  else
    pads = call.dims(1);
  std::vector<int64_t> axes = range(0, static_cast<int64_t>(rank));
  if (call.has_input(3)) {
    axes = call.integers(3);
    for (int64_t& axis : axes) axis = call.axis(axis, rank);
  }
  call.expect(pads.size() == 2 * axes.size(), std::to_string(pads.size()) + " pads",
              std::to_string(2 * axes.size()));
  Padding padding{std::vector<Dim>(rank, Dim(0)), std::vector<Dim>(rank, Dim(0))};
  for (size_t i = 0; i < axes.size(); ++i) {
    padding.before[static_cast<size_t>(axes[i])] = pads[i];
    padding.after[static_cast<size_t>(axes[i])] = pads[axes.size() + i];
  }
  return padding;
}

// The axis repeats beyond its ends.
Value* wrap_axes(NodeCall& call, Value* x, const Padding& padding) {
  for (size_t i = 0; i < padding.before.size(); ++i) {
    if (padding.before[i].is_constant(0) && padding.after[i].is_constant(0)) continue;
    const int64_t size = known_size(call, x->type.shape[i], "an axis that wraps");
    const int64_t before = known_size(call, padding.before[i], "pads"),
                  after = known_size(call, padding.after[i], "pads");
    call.expect(size > 0, "an axis without elements", "some");
    std::vector<int64_t> indices;
    for (int64_t k = -before; k < size + after; ++k) indices.push_back(((k % size) + size) % size);
    x = take(call, x, static_cast<int64_t>(i), indices);
  }
  return x;
}

double pad_value(NodeCall& call) {
  if (call.version() < 11) return call.real_or("value", 0);
  if (!call.has_input(2)) return 0;
  const std::vector<double> values = call.reals(2);
  call.expect(values.size() == 1, std::to_string(values.size()) + " values", "one");
  return values[0];
}

Value* import_pad(NodeCall& call) {
  Value* x = call.input(0);
  const std::string mode = call.text_or("mode", "constant");
  const Padding padding = read_pads(call, x->type.rank());
  const double value = pad_value(call);
  if (mode == "wrap") return wrap_axes(call, x, padding);
  call.expect(mode == "constant" || mode == "reflect" || mode == "edge", "mode \"" + mode + "\"",
              "constant, reflect, edge or wrap");
  // Of bool there is no padding with true: as bytes there is.
  const bool is_bool = x->type.dtype == DType::Bool;
  if (is_bool) x = call.builder().cast(x, DType::U8);
  x = pad_with(call, x, padding.before, padding.after, value, mode == "edge" ? "replicate" : mode);
  return is_bool ? call.builder().cast(x, DType::Bool) : x;
}

Value* rearrange(NodeCall& call, Value* x, Shape split, const std::vector<int64_t>& order,
                 Shape result) {
  ir::Builder& builder = call.builder();
  return builder.reshape(builder.permute(builder.reshape(x, std::move(split)), order),
                         std::move(result));
}

int64_t block_size(NodeCall& call, const Value* x) {
  const int64_t block = call.integer("blocksize");
  call.expect(block >= 1 && block < (1 << 20), "blocksize " + std::to_string(block), "1 or more");
  call.expect(x->type.rank() == 4, "rank " + std::to_string(x->type.rank()), "4");
  return block;
}

Value* import_depth_to_space(NodeCall& call) {
  Value* x = call.input(0);
  const int64_t b = block_size(call, x);
  const std::string mode = call.text_or("mode", "DCR");
  call.expect(mode == "DCR" || mode == "CRD", "mode \"" + mode + "\"", "DCR or CRD");
  const Shape& s = x->type.shape;
  const Dim depth = ir::floordiv(s[1], b * b);
  const Shape result{s[0], depth, s[2] * b, s[3] * b};
  if (mode == "DCR")
    return rearrange(call, x, {s[0], b, b, depth, s[2], s[3]}, {0, 3, 4, 1, 5, 2}, result);
  return rearrange(call, x, {s[0], depth, b, b, s[2], s[3]}, {0, 1, 4, 2, 5, 3}, result);
}

Value* import_space_to_depth(NodeCall& call) {
  Value* x = call.input(0);
  const int64_t b = block_size(call, x);
  const Shape& s = x->type.shape;
  const Dim h = ir::floordiv(s[2], b), w = ir::floordiv(s[3], b);
  const std::string mode = call.text_or("mode", "DCR");
  call.expect(mode == "DCR" || mode == "CRD", "mode \"" + mode + "\"", "DCR or CRD");
  if (mode == "CRD")
    return rearrange(call, x, {s[0], s[1], h, b, w, b}, {0, 1, 3, 5, 2, 4},
                     {s[0], s[1] * (b * b), h, w});
  return rearrange(call, x, {s[0], s[1], h, b, w, b}, {0, 3, 5, 1, 2, 4},
                   {s[0], s[1] * (b * b), h, w});
}

Value* import_shape(NodeCall& call) {
  const Shape& shape = call.input(0)->type.shape;
  const auto rank = static_cast<int64_t>(shape.size());
  const auto place = [&](const char* name, int64_t fallback) {
    const int64_t given = call.integer_or(name, fallback);
    return std::clamp<int64_t>(given < 0 ? given + rank : given, 0, rank);
  };
  const int64_t start = place("start", 0), end = place("end", rank);
  if (start >= end) return call.integer_constant({});
  return call.dims_value({shape.begin() + start, shape.begin() + end});
}

Value* import_size(NodeCall& call) {
  const Dim elements = call.input(0)->type.elements();
  return call.make(Op::dim_value, {}, {{"value", elements}, {"dtype", DType::I64}});
}

// Each axis cut, or padded with zeros, on both sides.
Value* import_center_crop_pad(NodeCall& call) {
  Value* x = call.input(0);
  const size_t rank = x->type.rank();
  std::vector<int64_t> axes = call.integers_or("axes", range(0, static_cast<int64_t>(rank)));
  const std::vector<int64_t> wanted = call.integers(1);
  call.expect(wanted.size() == axes.size(), std::to_string(wanted.size()) + " sizes",
              std::to_string(axes.size()));
  std::vector<Dim> before(rank, Dim(0)), after = before;
  for (size_t i = 0; i < axes.size(); ++i) {
    const auto axis = static_cast<size_t>(call.axis(axes[i], rank));
    const int64_t size = known_size(call, x->type.shape[axis], "an axis to crop");
    const int64_t extra = wanted[i] - size;
    before[axis] = extra / 2;
    after[axis] = extra - extra / 2;
  }
  return pad_with(call, x, before, after, 0);
}

constexpr OperatorRow kRows[] = {
    {"CenterCropPad", import_center_crop_pad},
    {"Concat", import_concat},
    {"DepthToSpace", import_depth_to_space},
    {"Expand", import_expand},
    {"Flatten", import_flatten},
    {"Pad", import_pad},
    {"Reshape", import_reshape},
    {"Shape", import_shape},
    {"Size", import_size},
    {"Slice", import_slice},
    {"SpaceToDepth", import_space_to_depth},
    {"Split", import_split},
    {"Squeeze", import_squeeze},
    {"Tile", import_tile},
    {"Transpose", import_transpose},
    {"Unsqueeze", import_unsqueeze},
};

}  // namespace

OperatorRows shape_operators() { return kRows; }

}  // namespace kiln::import::onnx
