// Views: the same elements in another shape or order.
#include <algorithm>

#include "import/ops/common.h"

namespace kiln::import {
namespace {

using ir::Dim;
using ir::Shape;

int64_t rank_of(const Value* x) { return static_cast<int64_t>(x->type.rank()); }

// Replaces one -1 by what is left of the elements.
Shape resolve_shape(Call& call, const Dim& elements, Shape shape) {
  int64_t unknown = -1;
  Dim known(1);
  for (size_t i = 0; i < shape.size(); ++i) {
    if (shape[i].is_constant(-1)) {
      call.expect(unknown < 0, "-1 twice in " + shape_text(shape), "at most one");
      unknown = static_cast<int64_t>(i);
    } else {
      known *= shape[i];
    }
  }
  if (unknown < 0) return shape;
  call.expect(!known.is_constant(0), "-1 beside a size of 0",
              "a size that follows from the others");
  const Dim rest = ir::floordiv(elements, known);
  call.expect(ir::provably_equal(rest * known, elements),
              shape_text(shape) + " for " + elements.str() + " elements",
              "a shape that divides them");
  shape[unknown] = rest;
  return shape;
}

Value* view_as_shape(Call& call, Value* x, Shape shape) {
  return call.builder().reshape(x, resolve_shape(call, x->type.elements(), std::move(shape)));
}

Value* import_view(Call& call) {
  return view_as_shape(call, call.tensor("self"), call.dims(call.has("size") ? "size" : "shape"));
}

Value* import_view_as(Call& call) {
  return call.builder().reshape(call.tensor("self"), call.tensor("other")->type.shape);
}

Value* import_flatten(Call& call) {
  Value* x = call.tensor("self");
  if (rank_of(x) == 0) return call.builder().reshape(x, {1});
  const int64_t first = call.axis_or("start_dim", x->type.rank(), 0);
  const int64_t last = call.axis_or("end_dim", x->type.rank(), -1);
  call.expect(first <= last, "start_dim after end_dim", "start_dim <= end_dim");
  const Shape& shape = x->type.shape;
  Shape result(shape.begin(), shape.begin() + first);
  result.push_back(ir::product({shape.begin() + first, shape.begin() + last + 1}));
  result.insert(result.end(), shape.begin() + last + 1, shape.end());
  return call.builder().reshape(x, result);
}

Value* import_unflatten(Call& call) {
  Value* x = call.tensor("self");
  const int64_t axis = call.axis("dim", x->type.rank());
  const Shape sizes = resolve_shape(call, x->type.shape[axis], call.dims("sizes"));
  Shape result = x->type.shape;
  result.erase(result.begin() + axis);
  result.insert(result.begin() + axis, sizes.begin(), sizes.end());
  return call.builder().reshape(x, result);
}

Value* import_unsqueeze(Call& call) {
  Value* x = call.tensor("self");
  return unsqueeze(call, x, call.axis("dim", x->type.rank() + 1));
}

// Without dims: all axes of size 1. A symbolic size is not 1: tracing has decided that.
Value* import_squeeze(Call& call) {
  Value* x = call.tensor("self");
  if (call.node().target.ends_with(".dims") && call.integers("dim").empty()) return x;
  const std::vector<int64_t> axes = call.axes_or_all("dim", x->type.rank());
  Shape shape;
  for (int64_t i = 0; i < rank_of(x); ++i) {
    const bool dropped =
        std::ranges::find(axes, i) != axes.end() && x->type.shape[i].is_constant(1);
    if (!dropped) shape.push_back(x->type.shape[i]);
  }
  return call.builder().reshape(x, shape);
}

// -1 keeps a size.
Value* import_expand(Call& call) {
  Value* x = call.tensor("self");
  Shape shape = call.dims("size");
  const int64_t offset = static_cast<int64_t>(shape.size()) - rank_of(x);
  call.expect(offset >= 0, shape_text(shape) + " from " + shape_text(x->type.shape),
              "no fewer axes");
  for (size_t i = 0; i < shape.size(); ++i) {
    if (!shape[i].is_constant(-1)) continue;
    call.expect(static_cast<int64_t>(i) >= offset, "-1 for a new axis", "a size");
    shape[i] = x->type.shape[i - offset];
  }
  return call.builder().expand(x, shape);
}

Value* import_expand_as(Call& call) {
  return call.builder().expand(call.tensor("self"), call.tensor("other")->type.shape);
}

Value* import_permute(Call& call) {
  Value* x = call.tensor("self");
  std::vector<int64_t> axes = call.integers("dims");
  for (int64_t& axis : axes) axis = call.normalise_axis(axis, x->type.rank());
  return call.builder().permute(x, axes);
}

Value* swap_axes(Call& call, Value* x, int64_t a, int64_t b) {
  if (a == b) return x;
  std::vector<int64_t> axes = range(0, rank_of(x));
  std::swap(axes[a], axes[b]);
  return call.builder().permute(x, axes);
}

Value* import_transpose(Call& call) {
  Value* x = call.tensor("self");
  const char* first = call.has("dim0") ? "dim0" : "axis0";
  const char* second = call.has("dim1") ? "dim1" : "axis1";
  return swap_axes(call, x, call.axis(first, x->type.rank()), call.axis(second, x->type.rank()));
}

Value* import_t(Call& call) {
  Value* x = call.tensor("self");
  return rank_of(x) < 2 ? x : swap_axes(call, x, 0, 1);
}

Value* import_matrix_transpose(Call& call) {
  Value* x = call.tensor("self");
  call.expect(rank_of(x) >= 2, "rank " + std::to_string(rank_of(x)), "2 or more");
  return swap_axes(call, x, rank_of(x) - 2, rank_of(x) - 1);
}

Value* import_reverse_axes(Call& call) {
  Value* x = call.tensor("self");
  std::vector<int64_t> axes = range(0, rank_of(x));
  std::ranges::reverse(axes);
  return call.builder().permute(x, axes);
}

// Axes `source` move to `destination`; the others keep their order.
Value* import_movedim(Call& call) {
  Value* x = call.tensor("self");
  std::vector<int64_t> source = call.integers("source"), target = call.integers("destination");
  call.expect(source.size() == target.size(), "lists of different lengths",
              "one destination per source");
  std::vector<int64_t> axes(x->type.rank(), -1);
  for (size_t i = 0; i < source.size(); ++i) {
    source[i] = call.normalise_axis(source[i], x->type.rank());
    axes[call.normalise_axis(target[i], x->type.rank())] = source[i];
  }
  int64_t next = 0;
  for (int64_t& axis : axes) {
    if (axis >= 0) continue;
    while (std::ranges::find(source, next) != source.end()) ++next;
    axis = next++;
  }
  return call.builder().permute(x, axes);
}

// repeat: every axis, new leading ones included, is repeated as a whole: [n] -> [1, n] -> [r, n] ->
// [r * n].
Value* repeat(Call& call, Value* x, Shape repeats) {
  while (repeats.size() < x->type.rank()) repeats.insert(repeats.begin(), Dim(1));
  Shape shape = x->type.shape;
  while (shape.size() < repeats.size()) shape.insert(shape.begin(), Dim(1));
  Shape split, expanded, result;
  for (size_t i = 0; i < shape.size(); ++i) {
    if (!repeats[i].is_constant(1)) {
      split.push_back(1);
      expanded.push_back(repeats[i]);
    }
    split.push_back(shape[i]);
    expanded.push_back(shape[i]);
    result.push_back(shape[i] * repeats[i]);
  }
  Value* copies = call.builder().expand(call.builder().reshape(x, split), expanded);
  return call.builder().reshape(copies, result);
}

Value* import_repeat(Call& call) { return repeat(call, call.tensor("self"), call.dims("repeats")); }
Value* import_tile(Call& call) { return repeat(call, call.tensor("self"), call.dims("dims")); }

// Every element of the axis repeated: [n] -> [n, 1] -> [n, r] -> [n * r].
Value* import_repeat_interleave(Call& call) {
  Value* x = call.tensor("self");
  if (!call.has("dim")) x = call.builder().reshape(x, {x->type.elements()});
  const int64_t axis = call.axis_or("dim", x->type.rank(), 0);
  const Dim repeats = call.dim("repeats");
  Value* split = unsqueeze(call, x, axis + 1);
  Shape expanded = split->type.shape, result = x->type.shape;
  expanded[axis + 1] = repeats;
  result[axis] *= repeats;
  return call.builder().reshape(call.builder().expand(split, expanded), result);
}

Value* import_flip(Call& call) {
  Value* x = call.tensor("self");
  std::vector<int64_t> axes = call.integers("dims");
  if (axes.empty() || rank_of(x) == 0) return x;
  for (int64_t& axis : axes) axis = call.normalise_axis(axis, x->type.rank());
  std::ranges::sort(axes);
  return call.make(Op::flip, {x}, {{"axes", axes}});
}

// The last `shift` elements come first.
Value* roll_axis(Call& call, Value* x, int64_t axis, const Dim& shift) {
  const Dim size = x->type.shape[axis];
  if (size.is_constant(0)) return x;
  const Dim count = ir::mod(shift, ir::max(size, 1));  // a size that may be 0 divides nothing
  if (count.is_constant(0)) return x;
  Value* last = slice(call, x, axis, size - count, count);
  Value* first = slice(call, x, axis, 0, size - count);
  return call.make(Op::concat, {last, first}, {{"axis", axis}});
}

Value* import_roll(Call& call) {
  Value* x = call.tensor("self");
  const std::vector<Dim> shifts = call.dims("shifts");
  const std::vector<int64_t> axes = call.integers_or("dims", {});
  if (axes.empty()) {
    call.expect(shifts.size() == 1, std::to_string(shifts.size()) + " shifts without dims", "one");
    Value* flat = call.builder().reshape(x, {x->type.elements()});
    return call.builder().reshape(roll_axis(call, flat, 0, shifts[0]), x->type.shape);
  }
  call.expect(axes.size() == shifts.size(), "lists of different lengths", "one shift per dim");
  for (size_t i = 0; i < axes.size(); ++i) {
    x = roll_axis(call, x, call.normalise_axis(axes[i], x->type.rank()), shifts[i]);
  }
  return x;
}

// [.., C r r, H, W] -> [.., C, H r, W r]
Value* import_pixel_shuffle(Call& call) {
  Value* x = call.tensor("self");
  const int64_t r = call.integer("upscale_factor"), rank = rank_of(x);
  call.expect(rank >= 3 && r >= 1, "rank " + std::to_string(rank), "3 or more");
  const Shape shape = x->type.shape;
  const Dim channels = ir::floordiv(shape[rank - 3], r * r), h = shape[rank - 2],
            w = shape[rank - 1];
  Shape split(shape.begin(), shape.end() - 3), result = split;
  split.insert(split.end(), {channels, r, r, h, w});
  result.insert(result.end(), {channels, h * r, w * r});
  std::vector<int64_t> axes = range(0, rank - 3);
  for (int64_t axis : {0, 3, 1, 4, 2}) axes.push_back(rank - 3 + axis);
  return call.builder().reshape(call.builder().permute(call.builder().reshape(x, split), axes),
                                result);
}

// [.., C, H r, W r] -> [.., C r r, H, W]
Value* import_pixel_unshuffle(Call& call) {
  Value* x = call.tensor("self");
  const int64_t r = call.integer("downscale_factor"), rank = rank_of(x);
  call.expect(rank >= 3 && r >= 1, "rank " + std::to_string(rank), "3 or more");
  const Shape shape = x->type.shape;
  const Dim channels = shape[rank - 3], h = ir::floordiv(shape[rank - 2], r),
            w = ir::floordiv(shape[rank - 1], r);
  Shape split(shape.begin(), shape.end() - 3), result = split;
  split.insert(split.end(), {channels, h, r, w, r});
  result.insert(result.end(), {channels * (r * r), h, w});
  std::vector<int64_t> axes = range(0, rank - 3);
  for (int64_t axis : {0, 2, 4, 1, 3}) axes.push_back(rank - 3 + axis);
  return call.builder().reshape(call.builder().permute(call.builder().reshape(x, split), axes),
                                result);
}

Value* import_channel_shuffle(Call& call) {
  Value* x = call.tensor("self");
  const int64_t groups = call.integer("groups");
  call.expect(rank_of(x) >= 3, "rank " + std::to_string(rank_of(x)), "3 or more");
  Shape split = x->type.shape;
  split[1] = ir::floordiv(split[1], groups);
  split.insert(split.begin() + 1, Dim(groups));
  return call.builder().reshape(swap_axes(call, call.builder().reshape(x, split), 1, 2),
                                x->type.shape);
}

// Quarter turns in the plane of two axes.
Value* import_rot90(Call& call) {
  Value* x = call.tensor("self");
  std::vector<int64_t> axes = call.integers_or("dims", {0, 1});
  call.expect(axes.size() == 2, std::to_string(axes.size()) + " dims", "2");
  for (int64_t& axis : axes) axis = call.normalise_axis(axis, x->type.rank());
  const auto flip = [&](Value* v, int64_t axis) {
    return call.make(Op::flip, {v}, {{"axes", std::vector<int64_t>{axis}}});
  };
  switch ((call.integer_or("k", 1) % 4 + 4) % 4) {
    case 1:
      return swap_axes(call, flip(x, axes[1]), axes[0], axes[1]);
    case 2:
      return flip(flip(x, axes[0]), axes[1]);
    case 3:
      return swap_axes(call, flip(x, axes[0]), axes[0], axes[1]);
    default:
      return x;
  }
}

constexpr Row kRows[] = {
    {"aten.rot90.default", import_rot90},
    {"aten.view.default", import_view},
    {"aten.reshape.default", import_view},
    {"aten._unsafe_view.default", import_view},
    {"aten.view_copy.default", import_view},
    {"aten.view_as.default", import_view_as},
    {"aten.reshape_as.default", import_view_as},
    {"aten.flatten.using_ints", import_flatten},
    {"aten.unflatten.int", import_unflatten},
    {"aten.unsqueeze.default", import_unsqueeze},
    {"aten.unsqueeze_copy.default", import_unsqueeze},
    {"aten.squeeze.default", import_squeeze},
    {"aten.squeeze.dim", import_squeeze},
    {"aten.squeeze.dims", import_squeeze},
    {"aten.expand.default", import_expand},
    {"aten.expand_copy.default", import_expand},
    {"aten.broadcast_to.default", import_expand},
    {"aten.expand_as.default", import_expand_as},
    {"aten.permute.default", import_permute},
    {"aten.permute_copy.default", import_permute},
    {"aten.transpose.int", import_transpose},
    {"aten.swapaxes.default", import_transpose},
    {"aten.swapdims.default", import_transpose},
    {"aten.t.default", import_t},
    {"aten.numpy_T.default", import_reverse_axes},
    {"aten.mT.default", import_matrix_transpose},
    {"aten.adjoint.default", import_matrix_transpose},
    {"aten.movedim.int", import_movedim},
    {"aten.movedim.intlist", import_movedim},
    {"aten.moveaxis.int", import_movedim},
    {"aten.moveaxis.intlist", import_movedim},
    {"aten.repeat.default", import_repeat},
    {"aten.tile.default", import_tile},
    {"aten.repeat_interleave.self_int", import_repeat_interleave},
    {"aten.flip.default", import_flip},
    {"aten.roll.default", import_roll},
    {"aten.pixel_shuffle.default", import_pixel_shuffle},
    {"aten.pixel_unshuffle.default", import_pixel_unshuffle},
    {"aten.channel_shuffle.default", import_channel_shuffle},
    {"aten.native_channel_shuffle.default", import_channel_shuffle},
};

}  // namespace

Rows shape_rows() { return kRows; }

}  // namespace kiln::import
