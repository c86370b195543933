// Resizing: each axis in turn is a sum of gathered elements with weights, all known now.
#include <algorithm>
#include <cmath>

#include "import/onnx/ops/common.h"

namespace kiln::import::onnx {
namespace {

struct Settings {
  std::string mode, coordinates, nearest;
  double cubic = -0.75, outside = 0;
  bool excludes_outside = false, antialiases = false;
};

struct Axis {
  int64_t axis = 0, input = 0, output = 0;
  bool by_scale = false;      // not by a size
  double scale = 1;           // outputs per input
  double begin = 0, end = 1;  // of the region, for tf_crop_and_resize
};

// Weighted elements of the input for each output: [taps][outputs].
struct Taps {
  std::vector<std::vector<int64_t>> indices;
  std::vector<std::vector<double>> weights;
  std::vector<double> inside;  // 0: the output is the extrapolation value
};

// The place of output i in the input, as each convention has it.
double source_position(NodeCall& call, const Settings& settings, const Axis& axis, int64_t i) {
  const std::string& how = settings.coordinates;
  const auto at = static_cast<double>(i);
  const auto input = static_cast<double>(axis.input), output = static_cast<double>(axis.output);
  if (how == "half_pixel") return (at + 0.5) / axis.scale - 0.5;
  if (how == "asymmetric") return at / axis.scale;
  if (how == "align_corners") {  // by the size that the scale asks for, before it is rounded
    const double wanted = axis.by_scale ? axis.scale * input : output;
    return axis.output == 1 ? 0 : at * (input - 1) / (wanted - 1);
  }
  if (how == "pytorch_half_pixel") return axis.output > 1 ? (at + 0.5) / axis.scale - 0.5 : 0;
  if (how == "tf_half_pixel_for_nn") return (at + 0.5) / axis.scale;
  if (how == "half_pixel_symmetric") {
    const double adjustment = output / (axis.scale * input);  // what rounding the size has changed
    return input / 2 * (1 - adjustment) + (at + 0.5) / axis.scale - 0.5;
  }
  if (how == "tf_crop_and_resize") {
    if (axis.output == 1) return (axis.begin + axis.end) * (input - 1) / 2;
    return axis.begin * (input - 1) + at * (axis.end - axis.begin) * (input - 1) / (output - 1);
  }
  call.fail("coordinate_transformation_mode \"" + how + "\"", "one that ONNX has");
}

int64_t nearest_pixel(NodeCall& call, const Settings& settings, double position) {
  const std::string& how = settings.nearest;
  if (how == "round_prefer_floor") return static_cast<int64_t>(std::ceil(position - 0.5));
  if (how == "round_prefer_ceil") return static_cast<int64_t>(std::floor(position + 0.5));
  if (how == "floor") return static_cast<int64_t>(std::floor(position));
  if (how == "ceil") return static_cast<int64_t>(std::ceil(position));
  call.fail("nearest_mode \"" + how + "\"", "one that ONNX has");
}

double linear(double distance) { return std::max(0.0, 1 - std::abs(distance)); }

double cubic(double distance, double a) {
  const double x = std::abs(distance);
  if (x <= 1) return ((a + 2) * x - (a + 3)) * x * x + 1;
  return x < 2 ? (((x - 5) * x + 8) * x - 4) * a : 0;
}

// The elements near a position and their weights. When it shrinks with antialiasing, the kernel
// grows as the steps do.
void add_taps(NodeCall& call, const Settings& settings, const Axis& axis, double position,
              std::map<int64_t, double>& weights) {
  if (settings.mode == "nearest") {
    const int64_t pixel = nearest_pixel(call, settings, position);
    weights[std::clamp<int64_t>(pixel, 0, axis.input - 1)] = 1;
    return;
  }
  const bool is_cubic = settings.mode == "cubic";
  const double shrink = settings.antialiases ? std::min(1.0, axis.scale) : 1;
  const double reach = (is_cubic ? 2 : 1) / shrink;
  double sum = 0;
  const auto first = static_cast<int64_t>(std::floor(position - reach)) + 1;
  const auto last = static_cast<int64_t>(std::ceil(position + reach)) - 1;
  for (int64_t pixel = first; pixel <= last; ++pixel) {
    const double distance = (static_cast<double>(pixel) - position) * shrink;
    const double weight = is_cubic ? cubic(distance, settings.cubic) : linear(distance);
    const bool is_outside = pixel < 0 || pixel >= axis.input;
    if (is_outside && settings.excludes_outside) continue;
    weights[std::clamp<int64_t>(pixel, 0, axis.input - 1)] += weight;
    sum += weight;
  }
  if (sum != 0 && (settings.excludes_outside || settings.antialiases))
    for (auto& [pixel, weight] : weights) weight /= sum;
}

Taps make_taps(NodeCall& call, const Settings& settings, const Axis& axis) {
  std::vector<std::map<int64_t, double>> outputs(static_cast<size_t>(axis.output));
  Taps taps;
  size_t most = 1;
  for (int64_t i = 0; i < axis.output; ++i) {
    const double position = source_position(call, settings, axis, i);
    const bool inside = settings.coordinates != "tf_crop_and_resize" ||
                        (position >= 0 && position <= static_cast<double>(axis.input - 1));
    taps.inside.push_back(inside ? 1 : 0);
    auto& weights = outputs[static_cast<size_t>(i)];
    if (inside) add_taps(call, settings, axis, position, weights);
    most = std::max(most, weights.size());
  }
  taps.indices.resize(most);
  taps.weights.resize(most);
  for (const auto& weights : outputs) {
    auto next = weights.begin();
    for (size_t t = 0; t < most; ++t) {
      const bool given = next != weights.end();
      taps.indices[t].push_back(given ? next->first : weights.empty() ? 0 : weights.begin()->first);
      taps.weights[t].push_back(given ? next->second : 0);
      if (given) ++next;
    }
  }
  return taps;
}

// Numbers along an axis, shaped to broadcast.
Value* along(NodeCall& call, DType dtype, const std::vector<double>& values, const Value* like,
             int64_t axis) {
  std::vector<int64_t> shape(like->type.rank() - static_cast<size_t>(axis), 1);
  shape[0] = static_cast<int64_t>(values.size());
  return call.real_constant(dtype, values, shape);
}

Value* resize_axis(NodeCall& call, Value* x, const Settings& settings, const Axis& axis) {
  const Taps taps = make_taps(call, settings, axis);
  Value* result = nullptr;
  if (settings.mode == "nearest") {
    result = take(call, x, axis.axis, taps.indices[0]);
  } else {
    std::optional<Expr> sum;
    for (size_t t = 0; t < taps.indices.size(); ++t) {
      const Expr part = call.expr(take(call, x, axis.axis, taps.indices[t]));
      const Expr term = part * call.expr(along(call, x->type.dtype, taps.weights[t], x, axis.axis));
      sum = sum ? *sum + term : term;
    }
    result = *sum;
  }
  if (std::ranges::count(taps.inside, 0) == 0) return result;
  const Expr inside = call.expr(along(call, DType::Bool, taps.inside, x, axis.axis));
  return inside.select(call.expr(result),
                       call.expr(call.builder().scalar(x->type.dtype, settings.outside)));
}

Settings read_settings(NodeCall& call) {
  Settings settings;
  settings.mode = call.text_or("mode", "nearest");
  if (settings.mode == "bilinear" || settings.mode == "trilinear") settings.mode = "linear";
  call.expect(settings.mode == "nearest" || settings.mode == "linear" || settings.mode == "cubic",
              "mode \"" + settings.mode + "\"", "nearest, linear or cubic");
  const bool old = call.version() < 11;
  settings.coordinates =
      call.text_or("coordinate_transformation_mode", old ? "asymmetric" : "half_pixel");
  settings.nearest = call.text_or("nearest_mode", old ? "floor" : "round_prefer_floor");
  settings.cubic = call.real_or("cubic_coeff_a", -0.75);
  settings.outside = call.real_or("extrapolation_value", 0);
  settings.excludes_outside = call.flag_or("exclude_outside", false);
  settings.antialiases = call.flag_or("antialias", false);
  return settings;
}

// One scale for all axes, so that the result fits into the sizes or fills them.
void keep_aspect(NodeCall& call, const std::string& policy, std::vector<Axis>& axes) {
  if (policy == "stretch") return;
  call.expect(policy == "not_larger" || policy == "not_smaller",
              "keep_aspect_ratio_policy \"" + policy + "\"", "stretch, not_larger or not_smaller");
  double scale = axes.at(0).scale;
  for (const Axis& axis : axes)
    scale = policy == "not_larger" ? std::min(scale, axis.scale) : std::max(scale, axis.scale);
  for (Axis& axis : axes) {
    axis.scale = scale;
    axis.output = static_cast<int64_t>(std::floor(scale * static_cast<double>(axis.input) + 0.5));
  }
}

struct Targets {
  std::vector<double> scales;  // one of the two
  std::vector<int64_t> sizes;
  std::vector<double> region;  // begins, then ends
};

// Inputs came in another order before version 11, and scales were an attribute of Upsample.
Targets read_targets(NodeCall& call, bool crops) {
  Targets targets;
  if (call.node().op_type == "Upsample" && call.version() < 9) {
    targets.scales = call.reals_or("scales", {});
  } else if (call.version() < 11 || call.node().op_type == "Upsample") {
    targets.scales = call.reals(1);
  } else {
    if (crops)
      targets.region = call.reals(1);
    else
      call.optional_input(1);
    if (call.has_input(2)) targets.scales = call.reals(2);
    if (call.has_input(3)) targets.sizes = call.integers(3);
  }
  return targets;
}

std::vector<Axis> read_axes(NodeCall& call, const Value* x, const Settings& settings) {
  constexpr double kMaxSize = 1 << 28;
  const bool crops = settings.coordinates == "tf_crop_and_resize";
  const Targets targets = read_targets(call, crops);
  const size_t rank = x->type.rank();
  std::vector<int64_t> axes = call.integers_or("axes", range(0, static_cast<int64_t>(rank)));
  const bool by_size = !targets.sizes.empty();
  call.expect((by_size ? targets.sizes.size() : targets.scales.size()) == axes.size(),
              std::to_string(targets.sizes.size() + targets.scales.size()) + " scales or sizes",
              "one for each of " + std::to_string(axes.size()) + " axes");
  call.expect(!crops || targets.region.size() == 2 * axes.size(), "another region",
              "a begin and an end for each axis, that are constants");
  std::vector<Axis> result;
  for (size_t i = 0; i < axes.size(); ++i) {
    Axis axis;
    axis.axis = call.axis(axes[i], rank);
    const Dim& size = x->type.shape[static_cast<size_t>(axis.axis)];
    if (!by_size && targets.scales[i] == 1 && !crops) continue;
    if (by_size && size.is_constant(targets.sizes[i]) && !crops &&
        call.text_or("keep_aspect_ratio_policy", "stretch") == "stretch")
      continue;
    axis.input = known_size(call, size, "an axis to resize");
    const auto input = static_cast<double>(axis.input);
    axis.by_scale = !by_size;
    axis.scale = by_size ? static_cast<double>(targets.sizes[i]) / input : targets.scales[i];
    const double output =
        by_size ? static_cast<double>(targets.sizes[i]) : std::floor(input * axis.scale);
    call.expect(axis.input > 0 && output > 0 && output < kMaxSize,
                "a result of size " + std::to_string(output), "1 or more");
    axis.output = static_cast<int64_t>(output);
    if (crops) {
      axis.begin = targets.region[i];
      axis.end = targets.region[axes.size() + i];
    }
    result.push_back(axis);
  }
  const std::string policy = call.text_or("keep_aspect_ratio_policy", "stretch");
  if (by_size && !result.empty()) keep_aspect(call, policy, result);
  return result;
}

Value* import_resize(NodeCall& call) {
  Value* x = call.input(0);
  const DType dtype = x->type.dtype;
  const Settings settings = read_settings(call);
  const std::vector<Axis> axes = read_axes(call, x, settings);
  if (settings.mode != "nearest" && !is_floating(dtype))
    call.fail("interpolation of " + std::string(dtype_name(dtype)), "floating numbers");
  if (settings.mode != "nearest") x = call.builder().cast(x, compute_dtype(dtype));
  for (const Axis& axis : axes) x = resize_axis(call, x, settings, axis);
  return call.builder().cast(x, dtype);
}

// Positions of a plane or a volume, turned by a matrix for each sample.
Value* import_affine_grid(NodeCall& call) {
  Value* theta = call.input(0);
  const std::vector<int64_t> size = call.integers(1);
  const bool corners = call.flag_or("align_corners", false);
  call.expect(size.size() == 4 || size.size() == 5, std::to_string(size.size()) + " sizes",
              "4 or 5");
  const size_t spatial = size.size() - 2;
  const std::vector<int64_t> extent(size.begin() + 2, size.end());
  int64_t count = 1;
  for (const int64_t n : extent) {
    call.expect(n >= 1 && n < (1 << 20) && count < (1 << 26), "size " + std::to_string(n), "fewer");
    count *= n;
  }
  std::vector<double> rows;  // x, y, (z,) 1 of each place
  for (int64_t i = 0; i < count; ++i) {
    int64_t rest = i;
    for (size_t k = spatial; k-- > 0; rest /= extent[k]) {
      const double n = static_cast<double>(extent[k]), at = static_cast<double>(rest % extent[k]);
      rows.push_back(corners ? (n == 1 ? 0 : 2 * at / (n - 1) - 1) : (2 * at + 1) / n - 1);
    }
    rows.push_back(1);
  }
  const auto width = static_cast<int64_t>(spatial) + 1;
  Value* places = call.real_constant(theta->type.dtype, rows, {1, count, width});
  Value* turned = call.make(Op::matmul, {places, theta}, {{"transpose_b", true}});
  Shape shape{theta->type.shape.at(0)};
  for (const int64_t n : extent) shape.emplace_back(n);
  shape.emplace_back(width - 1);
  return call.builder().reshape(turned, shape);
}

constexpr OperatorRow kRows[] = {
    {"AffineGrid", import_affine_grid},
    {"Resize", import_resize},
    {"Upsample", import_resize},
};

}  // namespace

OperatorRows resize_operators() { return kRows; }

}  // namespace kiln::import::onnx
