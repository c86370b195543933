// Convolutions, transposed ones included.
#include <algorithm>
#include <optional>

#include "import/ops/common.h"

namespace kiln::import {
namespace {

struct Geometry {
  std::vector<int64_t> stride, padding_before, padding_after, dilation;
  int64_t groups = 1;
};

// The elements under a kernel, of all its places: [N, C, s..] -> [N, C, taps, o..]. `output`: the sizes o.
Value* unfold(Call& call, Value* x, const std::vector<int64_t>& kernel, const Geometry& geometry,
              ir::Shape& output) {
  std::vector<ir::Dim> before(2, ir::Dim(0)), after = before;
  for (size_t i = 0; i < kernel.size(); ++i) {
    const int64_t padding = geometry.padding_before[i] + geometry.padding_after[i];
    const ir::Dim room =
        x->type.shape[i + 2] + (padding - geometry.dilation[i] * (kernel[i] - 1) - 1);
    output.push_back(ir::floordiv(room, geometry.stride[i]) + 1);
    before.emplace_back(geometry.padding_before[i]);
    after.emplace_back(geometry.padding_after[i]);
  }
  x = pad_constant(call, x, before, after);
  std::vector<Value*> parts{x};
  for (size_t i = 0; i < kernel.size(); ++i) {
    std::vector<Value*> next;
    for (Value* part : parts) {
      for (int64_t tap = 0; tap < kernel[i]; ++tap) {
        next.push_back(call.make(Op::slice, {part},
                                 {{"axis", static_cast<int64_t>(i) + 2},
                                  {"start", ir::Dim(tap * geometry.dilation[i])},
                                  {"size", output[i]},
                                  {"step", geometry.stride[i]}}));
      }
    }
    parts = std::move(next);
  }
  for (Value*& part : parts) part = unsqueeze(call, part, 2);
  return call.make(Op::concat, parts, {{"axis", int64_t{2}}});
}

// Sums of products like any other: backends have kernels for floats.
Value* integer_convolution(Call& call, Value* x, Value* weight, const Geometry& geometry) {
  constexpr int64_t kMostTaps = 512;
  std::vector<int64_t> kernel;
  int64_t taps = 1;
  for (size_t i = 2; i < weight->type.rank(); ++i) {
    call.expect(weight->type.shape[i].is_constant(),
                "a kernel of size " + weight->type.shape[i].str(), "a constant size");
    kernel.push_back(weight->type.shape[i].constant());
    taps *= kernel.back();
  }
  call.expect(taps > 0 && taps <= kMostTaps, "a kernel of " + std::to_string(taps) + " integers",
              "1 to " + std::to_string(kMostTaps));
  const ir::Dim outputs = weight->type.shape[0], inputs = weight->type.shape[1] * taps;
  const ir::Dim groups = geometry.groups, batch = x->type.shape[0];
  ir::Shape space;
  Value* columns = unfold(call, x, kernel, geometry, space);
  ir::Builder& builder = call.builder();
  columns = builder.reshape(columns, {batch, groups, inputs, ir::product(space)});
  Value* rows = builder.reshape(weight, {groups, ir::floordiv(outputs, geometry.groups), inputs});
  ir::Shape shape{batch, outputs};
  shape.insert(shape.end(), space.begin(), space.end());
  const Expr result(call, builder.reshape(matmul(call, rows, columns), shape));
  Value* bias = call.optional_tensor("bias");
  if (bias == nullptr) return result;
  ir::Shape along(space.size() + 1, ir::Dim(1));
  along[0] = outputs;
  return result + Expr(call, builder.reshape(bias, along));
}

Value* convolve(Call& call, Value* x, Value* weight, const Geometry& geometry) {
  if (!is_floating(x->type.dtype)) return integer_convolution(call, x, weight, geometry);
  std::vector<Value*> operands{x, weight};
  if (Value* bias = call.optional_tensor("bias")) operands.push_back(bias);
  return call.make(Op::convolution, operands,
                   {{"stride", geometry.stride},
                    {"padding_before", geometry.padding_before},
                    {"padding_after", geometry.padding_after},
                    {"dilation", geometry.dilation},
                    {"groups", geometry.groups},
                    {"layout", std::string("nchw")}});
}

// The extra of uneven "same" padding goes behind, as in PyTorch.
void set_padding(Call& call, const ir::Shape& kernel, Geometry& geometry) {
  const size_t spatial = kernel.size();
  const std::string mode = [&] {
    const auto& inputs = call.node().inputs;
    for (const auto& [name, argument] : inputs) {
      if (name == "padding" && std::holds_alternative<std::string>(argument))
        return std::get<std::string>(argument);
    }
    return std::string();
  }();
  if (mode.empty()) {
    geometry.padding_before = geometry.padding_after = per_axis(call, "padding", spatial, 0);
    return;
  }
  call.expect(mode == "same" || mode == "valid", "padding \"" + mode + "\"", "same or valid");
  for (size_t i = 0; i < spatial; ++i) {
    call.expect(kernel[i].is_constant(), "a kernel of size " + kernel[i].str(), "a constant size");
    const int64_t total = mode == "same" ? geometry.dilation[i] * (kernel[i].constant() - 1) : 0;
    geometry.padding_before.push_back(total / 2);
    geometry.padding_after.push_back(total - total / 2);
  }
}

ir::Shape kernel_sizes(Call& call, Value* weight) {
  call.expect(weight->type.rank() >= 3, "a weight of shape " + shape_text(weight->type.shape),
              "rank 3 or more");
  return {weight->type.shape.begin() + 2, weight->type.shape.end()};
}

// Without a batch axis PyTorch adds one; gives what to compute on and whether to take it off again.
std::pair<Value*, bool> batched(Call& call, Value* x, Value* weight) {
  if (x->type.rank() + 1 != weight->type.rank()) return {x, false};
  return {unsqueeze(call, x, 0), true};
}

Value* unbatched(Call& call, Value* x, bool added) {
  if (!added) return x;
  return call.builder().reshape(x, ir::Shape(x->type.shape.begin() + 1, x->type.shape.end()));
}

Value* convolution(Call& call) {
  Value* weight = call.tensor("weight");
  const ir::Shape kernel = kernel_sizes(call, weight);
  Geometry geometry;
  geometry.stride = per_axis(call, "stride", kernel.size(), 1);
  geometry.dilation = per_axis(call, "dilation", kernel.size(), 1);
  geometry.groups = call.integer_or("groups", 1);
  set_padding(call, kernel, geometry);
  const auto [x, added] = batched(call, call.tensor("input"), weight);
  return unbatched(call, convolve(call, x, weight, geometry), added);
}

Value* pad_axis(Call& call, Value* x, size_t axis, const ir::Dim& first, const ir::Dim& last) {
  if (first.is_constant(0) && last.is_constant(0)) return x;
  std::vector<ir::Dim> before(x->type.rank(), ir::Dim(0)), after = before;
  before[axis] = first;
  after[axis] = last;
  return pad_constant(call, x, before, after);
}

// [.., n, taps] -> [.., n', ..]: element (i, t) is added to place i * stride + t * dilation, which begins at the axis.
// Runs of `stride` taps lie side by side, so that the first runs of all elements are a row, and the second ones another.
Value* add_taps(Call& call, Value* x, int64_t taps, int64_t stride, int64_t dilation) {
  const size_t axis = x->type.rank() - 2, last = axis + 1;
  const int64_t run = dilation == 1 ? std::min(taps, stride) : 1;
  const int64_t runs = (taps + run - 1) / run, reach = (runs - 1) * run * dilation;
  x = pad_axis(call, x, last, 0, runs * run - taps);
  const ir::Dim row = x->type.shape[axis] * stride;
  std::optional<Expr> sum;
  for (int64_t i = 0; i < runs; ++i) {
    Value* part = slice(call, x, static_cast<int64_t>(last), i * run, run);
    part = pad_axis(call, part, last, 0, stride - run);
    ir::Shape shape(part->type.shape.begin(), part->type.shape.end() - 2);
    shape.push_back(row);
    const int64_t start = i * run * dilation;
    const Expr placed(
        call, pad_axis(call, call.builder().reshape(part, shape), axis, start, reach - start));
    sum = sum ? *sum + placed : placed;
  }
  return *sum;
}

// What each element gives to the places under the kernel: [N, C, s..] and [C, O / g, k..] -> [N, O, k.., s..].
Value* spread(Call& call, Value* x, Value* weight, int64_t groups) {
  ir::Builder& builder = call.builder();
  const ir::Shape from = x->type.shape, kernel = weight->type.shape;
  const ir::Dim inputs = ir::floordiv(kernel[0], groups);
  const ir::Shape space(from.begin() + 2, from.end()), taps(kernel.begin() + 2, kernel.end());
  const ir::Dim rows = kernel[1] * ir::product(taps);
  Value* matrix =
      builder.permute(builder.reshape(weight, {ir::Dim(groups), inputs, rows}), {0, 2, 1});
  Value* columns = builder.reshape(x, {from[0], ir::Dim(groups), inputs, ir::product(space)});
  ir::Shape shape{from[0], kernel[1] * groups};
  shape.insert(shape.end(), taps.begin(), taps.end());
  shape.insert(shape.end(), space.begin(), space.end());
  return builder.reshape(matmul(call, matrix, columns), shape);
}

// Each element times the kernel, added up where kernels overlap: there is no zero that an infinite weight could meet.
Value* transposed_convolution(Call& call) {
  Value* weight = call.tensor("weight");
  const ir::Shape kernel = kernel_sizes(call, weight);
  const size_t spatial = kernel.size();
  const std::vector<int64_t> stride = per_axis(call, "stride", spatial, 1);
  const std::vector<int64_t> padding = per_axis(call, "padding", spatial, 0);
  const std::vector<int64_t> output_padding = per_axis(call, "output_padding", spatial, 0);
  const std::vector<int64_t> dilation = per_axis(call, "dilation", spatial, 1);
  const auto [input, added] = batched(call, call.tensor("input"), weight);
  bool overlaps = false;
  for (size_t i = 0; i < spatial; ++i) {
    call.expect(kernel[i].is_constant(), "a kernel of size " + kernel[i].str(), "a constant size");
    overlaps |= dilation[i] * (kernel[i].constant() - 1) >= stride[i];
  }
  // Of 16 bits, sums are not rounded one by one.
  const DType dtype = input->type.dtype, wide = overlaps ? compute_dtype(dtype) : dtype;
  ir::Builder& builder = call.builder();
  Value* x = spread(call, builder.cast(input, wide), builder.cast(weight, wide),
                    call.integer_or("groups", 1));
  for (size_t i = 0; i < spatial; ++i) {
    // [N, O, k.., s.., done..]: the first kernel axis and the first of space become one, which goes last.
    const auto rank = static_cast<int64_t>(x->type.rank());
    const auto left = static_cast<int64_t>(spatial - i);
    const ir::Dim size = x->type.shape[2 + left];
    x = move_axis(call, move_axis(call, x, 2 + left, rank - 1), 2, rank - 1);
    x = add_taps(call, x, kernel[i].constant(), stride[i], dilation[i]);
    const ir::Dim wanted = (size - 1) * stride[i] - 2 * padding[i] +
                           dilation[i] * (kernel[i].constant() - 1) + output_padding[i] + 1;
    const auto axis = x->type.rank() - 1;
    x = pad_axis(call, x, axis, -padding[i], wanted - x->type.shape[axis] + padding[i]);
  }
  if (Value* bias = call.optional_tensor("bias")) {
    ir::Shape shape(spatial + 1, ir::Dim(1));
    shape[0] = bias->type.shape[0];
    x = Expr(call, x) + Expr(call, builder.cast(builder.reshape(bias, shape), wide));
  }
  return unbatched(call, builder.cast(x, dtype), added);
}

Value* import_convolution(Call& call) {
  return call.boolean_or("transposed", false) ? transposed_convolution(call) : convolution(call);
}

constexpr Row kRows[] = {
    {"aten.convolution.default", import_convolution},
    {"aten._convolution.default", import_convolution},
    {"aten.conv1d.default", convolution},
    {"aten.conv2d.default", convolution},
    {"aten.conv3d.default", convolution},
    {"aten.conv1d.padding", convolution},
    {"aten.conv2d.padding", convolution},
    {"aten.conv3d.padding", convolution},
    {"aten.conv_transpose1d.default", transposed_convolution},
    {"aten.conv_transpose2d.input", transposed_convolution},
    {"aten.conv_transpose3d.input", transposed_convolution},
};

}  // namespace

Rows convolution_rows() { return kRows; }

}  // namespace kiln::import
