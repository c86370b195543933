// Resizing of images: each axis in turn is gathered at computed positions.
#include <algorithm>
#include <cmath>

#include "import/ops/common.h"

namespace kiln::import {
namespace {

struct Axis {
  int64_t axis = 0, input = 0, output = 0;
  double scale = 1;  // input positions per output position
};

std::vector<double> scale_arguments(Call& call, size_t spatial) {
  if (call.has("scale_factors")) return call.reals("scale_factors");
  static constexpr const char* kNames[3][3] = {
      {"scales", "", ""}, {"scales_h", "scales_w", ""}, {"scales_d", "scales_h", "scales_w"}};
  std::vector<double> result;
  for (size_t i = 0; i < spatial; ++i) {
    const char* name = kNames[spatial - 1][i];
    if (call.has(name)) result.push_back(call.real_or(name, 1));
  }
  return result.size() == spatial ? result : std::vector<double>{};
}

// PyTorch maps positions by the given scale where there is one, else by the ratio of sizes.
double position_scale(const Axis& axis, double given, bool align_corners) {
  if (align_corners) {
    return axis.output > 1
               ? static_cast<double>(axis.input - 1) / static_cast<double>(axis.output - 1)
               : 0;
  }
  return given > 0 ? 1 / given : static_cast<double>(axis.input) / static_cast<double>(axis.output);
}

std::vector<Axis> resized_axes(Call& call, const Value* x, size_t spatial) {
  call.expect(x->type.rank() == spatial + 2, "an input of shape " + shape_text(x->type.shape),
              "rank " + std::to_string(spatial + 2));
  const bool has_size = call.has("output_size");
  const std::vector<int64_t> sizes =
      has_size ? call.integers("output_size") : std::vector<int64_t>{};
  const std::vector<double> scales = scale_arguments(call, spatial);
  call.expect(has_size ? sizes.size() == spatial : scales.size() == spatial,
              "neither sizes nor scales", "one of them");
  std::vector<Axis> axes;
  for (size_t i = 0; i < spatial; ++i) {
    const ir::Dim& size = x->type.shape[i + 2];
    call.expect(size.is_constant(), "the symbolic size " + size.str(), "a constant");
    Axis axis{static_cast<int64_t>(i) + 2, size.constant(), 0, 1};
    axis.output =
        has_size ? sizes[i]
                 : static_cast<int64_t>(std::floor(static_cast<double>(axis.input) * scales[i]));
    call.expect(axis.output > 0 && axis.input > 0, "output size " + std::to_string(axis.output),
                "1 or more");
    axis.scale = position_scale(axis, scales.empty() ? 0 : scales[i],
                                call.boolean_or("align_corners", false));
    axes.push_back(axis);
  }
  return axes;
}

Value* index_constant(Call& call, const std::vector<int64_t>& indices) {
  std::byte* data = nullptr;
  ir::Literal literal =
      ir::Literal::allocate(DType::I64, {static_cast<int64_t>(indices.size())}, &data);
  std::copy(indices.begin(), indices.end(), reinterpret_cast<int64_t*>(data));
  return call.builder().constant(std::move(literal));
}

Value* take(Call& call, Value* x, int64_t axis, const std::vector<int64_t>& indices) {
  return call.make(Op::gather, {x, index_constant(call, indices)}, {{"axis", axis}});
}

// `centre`: positions are the middles of pixels.
Value* nearest(Call& call, size_t spatial, bool centre) {
  Value* x = call.tensor(call.has("input") ? "input" : "self");
  for (const Axis& axis : resized_axes(call, x, spatial)) {
    std::vector<int64_t> indices;
    for (int64_t i = 0; i < axis.output; ++i) {
      const auto scale = static_cast<float>(axis.scale);
      const float position = (static_cast<float>(i) + (centre ? 0.5f : 0.0f)) * scale;
      indices.push_back(std::min(static_cast<int64_t>(std::floor(position)), axis.input - 1));
    }
    x = take(call, x, axis.axis, indices);
  }
  return x;
}

template <size_t spatial>
Value* import_nearest(Call& call) {
  return nearest(call, spatial, false);
}

template <size_t spatial>
Value* import_nearest_exact(Call& call) {
  return nearest(call, spatial, true);
}

// Weights along one axis, shaped to broadcast.
Value* weight_constant(Call& call, const std::vector<double>& weights, const Value* like,
                       int64_t axis) {
  const DType dtype = like->type.dtype;
  std::vector<int64_t> shape(like->type.rank() - axis, 1);
  shape[0] = static_cast<int64_t>(weights.size());
  std::byte* data = nullptr;
  ir::Literal literal = ir::Literal::allocate(dtype, shape, &data);
  for (size_t i = 0; i < weights.size(); ++i)
    ir::Literal::set(data, dtype, static_cast<int64_t>(i), weights[i]);
  return call.builder().constant(std::move(literal));
}

// The sum over taps of x[index] * weight.
struct Taps {
  std::vector<std::vector<int64_t>> indices;
  std::vector<std::vector<double>> weights;
};

Value* apply_taps(Call& call, Value* x, int64_t axis, const Taps& taps) {
  std::optional<Expr> sum;
  for (size_t i = 0; i < taps.indices.size(); ++i) {
    const Expr part(call, take(call, x, axis, taps.indices[i]));
    const Expr term = part * Expr(call, weight_constant(call, taps.weights[i], x, axis));
    sum = sum ? *sum + term : term;
  }
  return *sum;
}

Taps linear_taps(const Axis& axis, bool align_corners) {
  Taps taps{std::vector<std::vector<int64_t>>(2), std::vector<std::vector<double>>(2)};
  for (int64_t i = 0; i < axis.output; ++i) {
    const double at = static_cast<double>(i);
    const double position =
        align_corners ? at * axis.scale : std::max(0.0, (at + 0.5) * axis.scale - 0.5);
    const int64_t low = std::min(static_cast<int64_t>(position), axis.input - 1);
    const double fraction = std::min(1.0, position - static_cast<double>(low));
    taps.indices[0].push_back(low);
    taps.indices[1].push_back(std::min(low + 1, axis.input - 1));
    taps.weights[0].push_back(1 - fraction);
    taps.weights[1].push_back(fraction);
  }
  return taps;
}

// Cubic convolution with a = -0.75.
double cubic(double distance) {
  constexpr double kA = -0.75;
  const double x = std::abs(distance);
  if (x <= 1) return ((kA + 2) * x - (kA + 3)) * x * x + 1;
  return x < 2 ? ((x - 5) * x + 8) * x * kA - 4 * kA : 0;
}

Taps cubic_taps(const Axis& axis, bool align_corners) {
  Taps taps{std::vector<std::vector<int64_t>>(4), std::vector<std::vector<double>>(4)};
  for (int64_t i = 0; i < axis.output; ++i) {
    const double at = static_cast<double>(i);
    const double position = align_corners ? at * axis.scale : (at + 0.5) * axis.scale - 0.5;
    const auto low = static_cast<int64_t>(std::floor(position));
    for (int64_t tap = 0; tap < 4; ++tap) {
      const int64_t index = low + tap - 1;
      taps.indices[tap].push_back(std::clamp<int64_t>(index, 0, axis.input - 1));
      taps.weights[tap].push_back(cubic(position - static_cast<double>(index)));
    }
  }
  return taps;
}

template <size_t spatial, Taps (*make_taps)(const Axis&, bool)>
Value* import_interpolated(Call& call) {
  Value* x = call.tensor(call.has("input") ? "input" : "self");
  const DType dtype = x->type.dtype;
  const std::vector<Axis> axes = resized_axes(call, x, spatial);
  if (dtype == DType::F16 || dtype == DType::BF16) x = call.builder().cast(x, DType::F32);
  call.expect(is_floating(x->type.dtype), "dtype " + std::string(dtype_name(dtype)),
              "a floating one");
  for (const Axis& axis : axes) {
    x = apply_taps(call, x, axis.axis, make_taps(axis, call.boolean_or("align_corners", false)));
  }
  return call.builder().cast(x, dtype);
}

constexpr Row kRows[] = {
    {"aten.upsample_nearest1d.default", import_nearest<1>},
    {"aten.upsample_nearest1d.vec", import_nearest<1>},
    {"aten.upsample_nearest2d.default", import_nearest<2>},
    {"aten.upsample_nearest2d.vec", import_nearest<2>},
    {"aten.upsample_nearest3d.default", import_nearest<3>},
    {"aten.upsample_nearest3d.vec", import_nearest<3>},
    {"aten._upsample_nearest_exact1d.default", import_nearest_exact<1>},
    {"aten._upsample_nearest_exact1d.vec", import_nearest_exact<1>},
    {"aten._upsample_nearest_exact2d.default", import_nearest_exact<2>},
    {"aten._upsample_nearest_exact2d.vec", import_nearest_exact<2>},
    {"aten._upsample_nearest_exact3d.default", import_nearest_exact<3>},
    {"aten._upsample_nearest_exact3d.vec", import_nearest_exact<3>},
    {"aten.upsample_linear1d.default", import_interpolated<1, linear_taps>},
    {"aten.upsample_linear1d.vec", import_interpolated<1, linear_taps>},
    {"aten.upsample_bilinear2d.default", import_interpolated<2, linear_taps>},
    {"aten.upsample_bilinear2d.vec", import_interpolated<2, linear_taps>},
    {"aten.upsample_trilinear3d.default", import_interpolated<3, linear_taps>},
    {"aten.upsample_trilinear3d.vec", import_interpolated<3, linear_taps>},
    {"aten.upsample_bicubic2d.default", import_interpolated<2, cubic_taps>},
    {"aten.upsample_bicubic2d.vec", import_interpolated<2, cubic_taps>},
};

}  // namespace

Rows resize_rows() { return kRows; }

}  // namespace kiln::import
