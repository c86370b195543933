// Resizing of images: each axis in turn is gathered at computed positions.
#include <algorithm>
#include <cmath>
#include <numeric>

#include "import/ops/common.h"
#include "ir/scalar.h"

namespace kiln::import {
namespace {

struct Axis {
  int64_t axis = 0, input = 0, output = 0;
  double given = 0;  // the model's scale, output positions per input position; 0: by the sizes
  // Sizes that are not known: `input` and `output` are 0 then.
  ir::Dim input_size = 0, output_size = 0;

  bool is_symbolic() const { return input == 0; }
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

// Input positions per output position, in the type that PyTorch computes positions in: where they
// fall between two pixels, or just miss one, every rounding counts.
template <typename Real>
Real position_scale(const Axis& axis, bool align_corners) {
  if (align_corners) {
    return axis.output > 1 ? static_cast<Real>(axis.input - 1) / static_cast<Real>(axis.output - 1)
                           : 0;
  }
  if (axis.given > 0) return static_cast<Real>(1.0 / axis.given);
  return static_cast<Real>(axis.input) / static_cast<Real>(axis.output);
}

// The position of an output pixel, from the middles of pixels unless corners are aligned. PyTorch's
// kernels are compiled with contraction.
template <typename Real>
Real source_position(const Axis& axis, int64_t i, bool align_corners) {
  const Real scale = position_scale<Real>(axis, align_corners), at = static_cast<Real>(i);
  return align_corners ? scale * at
                       : std::fma(scale, at + static_cast<Real>(0.5), static_cast<Real>(-0.5));
}

// PyTorch's kernels for small images know the scales 1 and 2 by the sizes. With others that give such sizes to an image of
// more than one pixel their results are not those of the kernels for large images.
bool depends_on_size(double scale) {
  const double part = scale - std::floor(scale);
  return scale > 1 && scale < 3 && part > 0 && part < 0.5;
}

// A scale is a whole number over a power of two: its products with sizes are exact.
Axis symbolic_axis(Call& call, Axis axis, const ir::Dim* output) {
  constexpr int64_t kParts = 1 << 16;
  const double scaled = axis.given * kParts;
  const bool is_exact = scaled >= 1 && scaled <= 0x1p40 && scaled == std::floor(scaled);
  call.expect(
      (is_exact || (output != nullptr && axis.given >= 0)) && !depends_on_size(axis.given),
      "the scale " + std::to_string(axis.given) + " for the symbolic size " + axis.input_size.str(),
      "a whole number over a power of two, not between 1 and 1.5 or 2 and 2.5");
  if (output != nullptr) {
    axis.output_size = *output;
  } else {
    const auto parts = static_cast<int64_t>(scaled);
    const int64_t common = std::gcd(parts, kParts);
    axis.output_size = ir::floordiv(axis.input_size * (parts / common), kParts / common);
  }
  for (const ir::Dim& size : {axis.input_size, axis.output_size})
    call.builder().require({size,
                            "a size other than 0 for dimension " + std::to_string(axis.axis) +
                                " of an image and of what it is resized to",
                            call.operation(), ir::Requirement::Kind::Sizes});
  return axis;
}

enum class Sizes { Known, Any };

std::vector<Axis> resized_axes(Call& call, const Value* x, size_t spatial,
                               Sizes accepted = Sizes::Known) {
  call.expect(x->type.rank() == spatial + 2, "an input of shape " + shape_text(x->type.shape),
              "rank " + std::to_string(spatial + 2));
  const bool has_size = call.has("output_size");
  const std::vector<ir::Dim> sizes = has_size ? call.dims("output_size") : std::vector<ir::Dim>{};
  const std::vector<double> scales = scale_arguments(call, spatial);
  call.expect(has_size ? sizes.size() == spatial : scales.size() == spatial,
              "neither sizes nor scales", "one of them");
  std::vector<Axis> axes;
  for (size_t i = 0; i < spatial; ++i) {
    const ir::Dim& size = x->type.shape[i + 2];
    Axis axis{.axis = static_cast<int64_t>(i) + 2, .given = scales.empty() ? 0 : scales[i]};
    axis.input_size = size;
    if (!size.is_constant() || (has_size && !sizes[i].is_constant())) {
      call.expect(accepted == Sizes::Any,
                  "the symbolic size " + (size.is_constant() ? sizes[i] : size).str(),
                  "a constant");
      axes.push_back(symbolic_axis(call, axis, has_size ? &sizes[i] : nullptr));
      continue;
    }
    axis.input = size.constant();
    axis.output =
        has_size ? sizes[i].constant()
                 : static_cast<int64_t>(std::floor(static_cast<double>(axis.input) * scales[i]));
    call.expect(axis.output > 0 && axis.input > 0, "output size " + std::to_string(axis.output),
                "1 or more");
    axes.push_back(axis);
  }
  return axes;
}

Value* take(Call& call, Value* x, int64_t axis, const std::vector<int64_t>& indices) {
  return call.make(Op::gather, {x, index_constant(call, indices)}, {{"axis", axis}});
}

// PyTorch has two kernels for nearest pixels, and they round differently. This one computes in f32
// throughout and knows the scales 1 and 2.
int64_t nearest_of_small(const Axis& axis, int64_t i, bool centre) {
  const auto scale = position_scale<float>(axis, false);
  if (centre) {
    const double position = (static_cast<double>(i) + 0.5) * static_cast<double>(scale);
    return static_cast<int64_t>(std::floor(static_cast<float>(position)));
  }
  if (axis.output == axis.input) return i;
  if (axis.output == 2 * axis.input) return i / 2;
  return static_cast<int64_t>(std::floor(static_cast<float>(i) * scale));
}

// And this one in the type of the pixels, f32 at least.
template <typename Real>
int64_t nearest_of_any(const Axis& axis, int64_t i, bool centre) {
  Real position = static_cast<Real>(i) * position_scale<Real>(axis, false);
  if (centre) {
    position = std::max(source_position<Real>(axis, i, false), static_cast<Real>(0)) +
               static_cast<Real>(0.5);
  }
  return static_cast<int64_t>(std::floor(static_cast<float>(position)));
}

// Where PyTorch takes the first kernel: for small images.
bool is_small(const std::vector<Axis>& axes) {
  constexpr int64_t kSmall = 128;
  if (std::ranges::any_of(axes, &Axis::is_symbolic)) return false;
  return axes.size() == 2 && axes[0].output + axes[1].output <= kSmall;
}

// A size, and the pixels of the output, in the type that positions are computed in.
Expr size_as(Call& call, const ir::Dim& size, DType dtype) {
  return {call, as_value(call.builder(), Number(size), dtype)};
}
Expr pixels_as(Call& call, const Axis& axis, DType dtype) {
  return {call, call.builder().cast(iota(call, axis.output_size), dtype)};
}

// position_scale, computed when the model runs.
Expr symbolic_scale(Call& call, const Axis& axis, bool align_corners, DType dtype) {
  const Expr input = size_as(call, axis.input_size, dtype),
             output = size_as(call, axis.output_size, dtype);
  if (align_corners) return (input - 1) / (output - 1).apply(Op::maximum, 1);
  return axis.given > 0 ? input.constant(ir::held_number(dtype, 1 / axis.given)) : input / output;
}

// Indices of pixels, kept in the image.
Expr inside(Call& call, const Axis& axis, const Expr& index) {
  const Expr pixels(call, call.builder().cast(index, DType::I64));
  return pixels.apply(Op::maximum, 0)
      .apply(Op::minimum, size_as(call, axis.input_size, DType::I64) - 1);
}

Value* symbolic_nearest(Call& call, Value* x, const Axis& axis, bool centre) {
  call.expect(
      !centre && x->type.dtype != DType::F64,
      "the symbolic size " + axis.input_size.str() + " of an image of f64, or for nearest-exact",
      "a constant");
  const Expr position =
      pixels_as(call, axis, DType::F32) * symbolic_scale(call, axis, false, DType::F32);
  return call.make(Op::gather, {x, inside(call, axis, position.apply(Op::floor))},
                   {{"axis", axis.axis}});
}

// `centre`: positions are the middles of pixels.
Value* nearest(Call& call, size_t spatial, bool centre) {
  Value* x = call.tensor(call.has("input") ? "input" : "self");
  auto* nearest_pixel =
      x->type.dtype == DType::F64 ? nearest_of_any<double> : nearest_of_any<float>;
  const std::vector<Axis> axes = resized_axes(call, x, spatial, Sizes::Any);
  if (is_small(axes)) nearest_pixel = nearest_of_small;
  for (const Axis& axis : axes) {
    if (axis.is_symbolic()) {
      x = symbolic_nearest(call, x, axis, centre);
      continue;
    }
    std::vector<int64_t> indices;
    for (int64_t i = 0; i < axis.output; ++i) {
      indices.push_back(std::min(nearest_pixel(axis, i, centre), axis.input - 1));
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

template <typename Real>
Taps linear_taps(const Axis& axis, bool align_corners) {
  Taps taps{std::vector<std::vector<int64_t>>(2), std::vector<std::vector<double>>(2)};
  for (int64_t i = 0; i < axis.output; ++i) {
    const Real position = std::max(source_position<Real>(axis, i, align_corners), Real(0));
    const bool copies = axis.output == axis.input;
    const int64_t low =
        copies ? i : std::min(static_cast<int64_t>(static_cast<float>(position)), axis.input - 1);
    const Real fraction =
        copies ? 0 : std::clamp(position - static_cast<Real>(low), Real(0), Real(1));
    taps.indices[0].push_back(low);
    taps.indices[1].push_back(copies ? low : std::min(low + 1, axis.input - 1));
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

template <typename Real>
Taps cubic_taps(const Axis& axis, bool align_corners) {
  Taps taps{std::vector<std::vector<int64_t>>(4), std::vector<std::vector<double>>(4)};
  for (int64_t i = 0; i < axis.output; ++i) {
    const Real position = source_position<Real>(axis, i, align_corners);
    const int64_t low =
        std::min(static_cast<int64_t>(std::floor(static_cast<float>(position))), axis.input - 1);
    const Real fraction = std::clamp(position - static_cast<Real>(low), Real(0), Real(1));
    for (int64_t tap = 0; tap < 4; ++tap) {
      taps.indices[tap].push_back(std::clamp<int64_t>(low + tap - 1, 0, axis.input - 1));
      taps.weights[tap].push_back(cubic(fraction - static_cast<double>(tap - 1)));
    }
  }
  return taps;
}

// The same where sizes are not known: the taps are computed when the model runs.
Value* symbolic_taps(Call& call, Value* x, const Axis& axis, bool is_linear) {
  const DType dtype = x->type.dtype;
  const bool align_corners = call.boolean_or("align_corners", false);
  const Expr scale = symbolic_scale(call, axis, align_corners, dtype);
  const Expr pixels = pixels_as(call, axis, dtype);
  Expr position = align_corners ? scale * pixels : scale * (pixels + 0.5) - 0.5;
  if (is_linear) position = position.apply(Op::maximum, 0);
  const Expr low =
      position.apply(Op::floor).apply(Op::minimum, size_as(call, axis.input_size, dtype) - 1);
  const Expr f = (position - low).apply(Op::maximum, 0).apply(Op::minimum, 1);
  constexpr double kA = -0.75;
  const auto near = [&](const Expr& d) { return (d * (kA + 2) - (kA + 3)) * d * d + 1; };
  const auto far = [&](const Expr& d) { return ((d - 5) * d + 8) * d * kA - 4 * kA; };
  const std::vector<Expr> weights =
      is_linear ? std::vector<Expr>{1 - f, f}
                : std::vector<Expr>{far(f + 1), near(f), near(1 - f), far(2 - f)};
  const double first = is_linear ? 0 : -1;
  std::optional<Expr> sum;
  for (size_t tap = 0; tap < weights.size(); ++tap) {
    const Expr index = inside(call, axis, low + (first + static_cast<double>(tap)));
    ir::Shape shape(x->type.rank() - axis.axis, 1);
    shape[0] = axis.output_size;
    const Expr weight(call, call.builder().reshape(weights[tap], shape));
    const Expr term = Expr(call, call.make(Op::gather, {x, index}, {{"axis", axis.axis}})) * weight;
    sum = sum ? *sum + term : term;
  }
  return *sum;
}

// PyTorch keeps the weights of 16-bit images in 16 bits, the second of two as the complement of the
// first; not in its kernel for small images.
void round_weights(Taps& taps, DType dtype) {
  const auto rounded = [&](double weight) { return ir::make_scalar(dtype, weight).number; };
  for (std::vector<double>& weights : taps.weights)
    std::ranges::transform(weights, weights.begin(), rounded);
  if (taps.weights.size() != 2) return;
  for (size_t i = 0; i < taps.weights[0].size(); ++i) {
    taps.weights[0][i] = rounded(1 - taps.weights[1][i]);
  }
}

// Many taps: a product with a matrix that has their weights. NaN in a row is NaN in all of it.
Value* apply_matrix(Call& call, Value* x, const Axis& axis, const Taps& taps) {
  const DType dtype = x->type.dtype;
  std::vector<double> weights(axis.output * axis.input, 0);
  for (size_t tap = 0; tap < taps.indices.size(); ++tap)
    for (int64_t i = 0; i < axis.output; ++i)
      weights[i * axis.input + taps.indices[tap][i]] += taps.weights[tap][i];
  std::byte* data = nullptr;
  ir::Literal literal = ir::Literal::allocate(dtype, {axis.output, axis.input}, &data);
  for (int64_t i = 0; i < literal.elements(); ++i) ir::Literal::set(data, dtype, i, weights[i]);
  const auto last = static_cast<int64_t>(x->type.rank()) - 1;
  Value* rows = move_axis(call, x, axis.axis, last);
  rows = call.make(Op::linear, {rows, call.builder().constant(std::move(literal))});
  return move_axis(call, rows, last, axis.axis);
}

// One by one where they are few.
Value* apply_weights(Call& call, Value* x, const Axis& axis, const Taps& taps) {
  constexpr size_t kFewTaps = 16;
  return taps.indices.size() <= kFewTaps ? apply_taps(call, x, axis.axis, taps)
                                         : apply_matrix(call, x, axis, taps);
}

// --- Images of bytes ---

// PyTorch rounds weights to as many binary digits as leave the largest of an axis below 2^15, adds up integers, and rounds to
// bytes after each axis, the width first.
struct WholeTaps {
  Taps taps;
  int digits = 0;
};

WholeTaps whole_taps(const Taps& taps, const Axis& axis) {
  WholeTaps result{taps};
  double largest = 0;
  for (int64_t i = 0; i < axis.output; ++i) {
    // What is beyond an edge adds to the weight of the pixel there.
    for (size_t tap = 1; tap < taps.indices.size(); ++tap) {
      for (size_t before = 0; before < tap; ++before) {
        if (taps.indices[before][i] != taps.indices[tap][i]) continue;
        result.taps.weights[before][i] += result.taps.weights[tap][i];
        result.taps.weights[tap][i] = 0;
        break;
      }
    }
    for (const std::vector<double>& weights : result.taps.weights)
      largest = std::max(largest, weights[i]);
  }
  constexpr int kMostDigits = 22;
  while (result.digits < kMostDigits &&
         static_cast<int>(0.5 + largest * (1 << (result.digits + 1))) < 1 << 15)
    ++result.digits;
  for (std::vector<double>& weights : result.taps.weights)
    for (double& weight : weights) weight = std::round(weight * (1 << result.digits));
  return result;
}

using MakeTaps = Taps (*)(const Axis&, bool);

Value* resize_bytes(Call& call, Value* x, std::vector<Axis> axes, MakeTaps make_taps) {
  std::ranges::reverse(axes);
  for (const Axis& axis : axes) {
    call.expect(!axis.is_symbolic(),
                "the symbolic size " + axis.input_size.str() + " of an image of u8", "a constant");
    call.expect(
        axis.given <= 0 || axis.given == 1 || axis.input != axis.output,
        "the scale " + std::to_string(axis.given) + " that keeps the size of an image of u8",
        "another size");
    const WholeTaps whole =
        whole_taps(make_taps(axis, call.boolean_or("align_corners", false)), axis);
    x = call.builder().cast(x, DType::F64);  // holds the sums exactly
    const Expr sum(call, apply_weights(call, x, axis, whole.taps));
    const Expr rounded = (sum * std::exp2(-whole.digits) + 0.5).apply(Op::floor);
    x = call.builder().cast(rounded.apply(Op::maximum, 0).apply(Op::minimum, 255), DType::U8);
  }
  return x;
}

// How the taps are made, for positions in f32 and in f64.
struct Kind {
  Taps (*single)(const Axis&, bool);
  Taps (*twice)(const Axis&, bool);
};
constexpr Kind kLinear{linear_taps<float>, linear_taps<double>};
constexpr Kind kCubic{cubic_taps<float>, cubic_taps<double>};

template <size_t spatial, const Kind& kind>
Value* import_interpolated(Call& call) {
  Value* x = call.tensor(call.has("input") ? "input" : "self");
  const DType dtype = x->type.dtype;
  const std::vector<Axis> axes = resized_axes(call, x, spatial, Sizes::Any);
  if (dtype == DType::U8 && spatial == 2) return resize_bytes(call, x, axes, kind.twice);
  if (is_16_bit_float(dtype)) x = call.builder().cast(x, DType::F32);
  call.expect(is_floating(x->type.dtype), "dtype " + std::string(dtype_name(dtype)),
              "a floating one, or u8 for images");
  auto* const make_taps = dtype == DType::F64 ? kind.twice : kind.single;
  const bool is_linear = kind.single == kLinear.single;
  for (const Axis& axis : axes) {
    if (axis.is_symbolic()) {
      x = symbolic_taps(call, x, axis, is_linear);
      continue;
    }
    Taps taps = make_taps(axis, call.boolean_or("align_corners", false));
    if (is_16_bit_float(dtype) && !(is_linear && is_small(axes))) round_weights(taps, dtype);
    x = apply_taps(call, x, axis.axis, taps);
  }
  return call.builder().cast(x, dtype);
}

// The filters of antialiased images: of 2 and of 4 pixels, which are wider where an image shrinks.
double triangle(double distance) { return std::max(0.0, 1 - std::abs(distance)); }

double smooth_cubic(double distance) {
  constexpr double kA = -0.5;
  const double x = std::abs(distance);
  if (x < 1) return ((kA + 2) * x - (kA + 3)) * x * x + 1;
  return x < 2 ? (((x - 5) * x + 8) * x - 4) * kA : 0;
}

struct Filter {
  double (*weight)(double distance);
  double support;
};
constexpr Filter kTriangle{triangle, 1}, kSmoothCubic{smooth_cubic, 2};

// Every output pixel is the mean of those under the filter.
template <typename Real>
Taps filter_taps(const Axis& axis, const Filter& filter, bool align_corners) {
  const Real scale = position_scale<Real>(axis, align_corners), half = static_cast<Real>(0.5);
  const Real support = static_cast<Real>(filter.support) * std::max(scale, Real(1));
  const Real inverse = scale >= 1 ? Real(1) / scale : Real(1);
  const auto most = static_cast<int64_t>(std::ceil(static_cast<float>(support))) * 2 + 1;
  Taps taps{std::vector<std::vector<int64_t>>(most), std::vector<std::vector<double>>(most)};
  for (int64_t i = 0; i < axis.output; ++i) {
    const Real centre = scale * (static_cast<Real>(i) + half);
    const int64_t first = std::max<int64_t>(static_cast<int64_t>(centre - support + half), 0);
    const int64_t end = std::min(static_cast<int64_t>(centre + support + half), axis.input);
    const int64_t count = std::clamp<int64_t>(end - first, 0, most);
    std::vector<double> weights(most, 0);
    double total = 0;
    for (int64_t k = 0; k < count; ++k) {
      const Real distance = (static_cast<Real>(k + first) - centre + half) * inverse;
      total += weights[k] = filter.weight(static_cast<double>(distance));
    }
    if (total != 0)
      for (double& weight : weights) weight /= total;
    // Taps that are left over share the last one's pixel and weight: another pixel, with a weight of 0, would make NaN of
    // an infinity that the filter does not reach.
    const int64_t last = std::max<int64_t>(count - 1, 0);
    const double share = weights[last] / static_cast<double>(most - last);
    for (int64_t k = 0; k < most; ++k) {
      taps.indices[k].push_back(std::clamp<int64_t>(first + std::min(k, last), 0, axis.input - 1));
      taps.weights[k].push_back(k < last ? weights[k] : share);
    }
  }
  return taps;
}

// The width first, as PyTorch does.
template <const Filter& filter>
Value* import_antialiased(Call& call) {
  Value* x = call.tensor(call.has("input") ? "input" : "self");
  const DType dtype = x->type.dtype;
  std::vector<Axis> axes = resized_axes(call, x, 2);
  if (dtype == DType::U8)
    return resize_bytes(call, x, axes, [](const Axis& axis, bool align_corners) {
      return filter_taps<double>(axis, filter, align_corners);
    });
  call.expect(is_floating(dtype), "dtype " + std::string(dtype_name(dtype)),
              "a floating one, or u8");
  std::ranges::reverse(axes);
  x = call.builder().cast(x, compute_dtype(dtype));
  for (const Axis& axis : axes) {
    const bool align_corners = call.boolean_or("align_corners", false);
    const Taps taps = dtype == DType::F64 ? filter_taps<double>(axis, filter, align_corners)
                                          : filter_taps<float>(axis, filter, align_corners);
    x = apply_weights(call, x, axis, taps);
  }
  return call.builder().cast(x, dtype);
}

constexpr Row kRows[] = {
    {"aten._upsample_bilinear2d_aa.default", import_antialiased<kTriangle>},
    {"aten._upsample_bilinear2d_aa.vec", import_antialiased<kTriangle>},
    {"aten._upsample_bicubic2d_aa.default", import_antialiased<kSmoothCubic>},
    {"aten._upsample_bicubic2d_aa.vec", import_antialiased<kSmoothCubic>},
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
    {"aten.upsample_linear1d.default", import_interpolated<1, kLinear>},
    {"aten.upsample_linear1d.vec", import_interpolated<1, kLinear>},
    {"aten.upsample_bilinear2d.default", import_interpolated<2, kLinear>},
    {"aten.upsample_bilinear2d.vec", import_interpolated<2, kLinear>},
    {"aten.upsample_trilinear3d.default", import_interpolated<3, kLinear>},
    {"aten.upsample_trilinear3d.vec", import_interpolated<3, kLinear>},
    {"aten.upsample_bicubic2d.default", import_interpolated<2, kCubic>},
    {"aten.upsample_bicubic2d.vec", import_interpolated<2, kCubic>},
};

}  // namespace

Rows resize_rows() { return kRows; }

}  // namespace kiln::import
