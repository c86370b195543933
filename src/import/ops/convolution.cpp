// Convolutions, transposed ones included.
#include "import/ops/common.h"

namespace kiln::import {
namespace {

struct Geometry {
  std::vector<int64_t> stride, padding_before, padding_after, dilation;
  int64_t groups = 1;
};

Value* convolve(Call& call, Value* x, Value* weight, const Geometry& geometry) {
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

// stride - 1 zeros between neighbours: [.., n, ..] -> [.., n, 1, ..] -> [.., n, stride, ..] -> [..,
// n * stride, ..], and the zeros behind the last element are cut off by the caller.
Value* insert_zeros(Call& call, Value* x, const std::vector<int64_t>& stride) {
  for (size_t i = 0; i < stride.size(); ++i) {
    if (stride[i] == 1) continue;
    const size_t axis = i + 2;
    Value* split = unsqueeze(call, x, static_cast<int64_t>(axis) + 1);
    std::vector<ir::Dim> before(split->type.rank(), ir::Dim(0)), after = before;
    after[axis + 1] = stride[i] - 1;
    Value* padded = call.make(
        Op::pad, {split},
        {{"before", before}, {"after", after}, {"value", 0.0}, {"mode", std::string("constant")}});
    ir::Shape shape = x->type.shape;
    shape[axis] *= stride[i];
    x = call.builder().reshape(padded, shape);
  }
  return x;
}

// [C, O / g, k..] -> [O, C / g, k..], mirrored in space.
Value* transpose_weight(Call& call, Value* weight, int64_t groups) {
  const ir::Shape shape = weight->type.shape;
  const ir::Dim inputs = ir::floordiv(shape[0], groups), outputs = shape[1];
  ir::Shape grouped{groups, inputs, outputs};
  grouped.insert(grouped.end(), shape.begin() + 2, shape.end());
  Value* swapped = move_axis(call, call.builder().reshape(weight, grouped), 1, 2);
  ir::Shape merged{outputs * groups, inputs};
  merged.insert(merged.end(), shape.begin() + 2, shape.end());
  Value* result = call.builder().reshape(swapped, merged);
  return call.make(Op::flip, {result}, {{"axes", range(2, static_cast<int64_t>(shape.size()))}});
}

// A transposed convolution is a convolution of the input with zeros in between and the weight
// mirrored.
Value* transposed_convolution(Call& call) {
  Value* weight = call.tensor("weight");
  const ir::Shape kernel = kernel_sizes(call, weight);
  const std::vector<int64_t> stride = per_axis(call, "stride", kernel.size(), 1);
  const std::vector<int64_t> padding = per_axis(call, "padding", kernel.size(), 0);
  const std::vector<int64_t> output_padding = per_axis(call, "output_padding", kernel.size(), 0);
  Geometry geometry;
  geometry.stride.assign(kernel.size(), 1);
  geometry.padding_before = geometry.padding_after = std::vector<int64_t>(kernel.size(), 0);
  geometry.dilation = per_axis(call, "dilation", kernel.size(), 1);
  geometry.groups = call.integer_or("groups", 1);
  const auto [input, added] = batched(call, call.tensor("input"), weight);
  Value* x = insert_zeros(call, input, stride);
  std::vector<ir::Dim> before(x->type.rank(), ir::Dim(0)), after = before;
  for (size_t i = 0; i < kernel.size(); ++i) {
    call.expect(kernel[i].is_constant(), "a kernel of size " + kernel[i].str(), "a constant size");
    const int64_t reach = geometry.dilation[i] * (kernel[i].constant() - 1) - padding[i];
    before[i + 2] = reach;
    after[i + 2] = reach + output_padding[i] - (stride[i] - 1);
  }
  x = call.make(
      Op::pad, {x},
      {{"before", before}, {"after", after}, {"value", 0.0}, {"mode", std::string("constant")}});
  Value* result = convolve(call, x, transpose_weight(call, weight, geometry.groups), geometry);
  return unbatched(call, result, added);
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
