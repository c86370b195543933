// Sampling of images at positions that a grid gives.
#include <optional>
#include <utility>

#include "import/ops/common.h"

namespace kiln::import {
namespace {

using ir::Dim;

// PyTorch's numbers for the modes.
constexpr int64_t kNearest = 1, kBicubic = 2;
constexpr int64_t kZeros = 0, kReflection = 2;

// One coordinate of the grid, in pixels along an axis of the image.
struct Position {
  Expr at;
  double size;

  Position with(const Expr& other) const { return {other, size}; }
};

// Into the image; NaN counts as 0.
Position clamp_to_border(const Position& p) {
  return p.with(
      p.at.apply(Op::ge, 0).select(p.at, p.at.constant(0)).apply(Op::minimum, p.size - 1));
}

// Into a volume, where PyTorch has NaN count as the far end.
Position clamp_to_far_border(const Position& p) {
  const double end = p.size - 1;
  return p.with(p.at.apply(Op::lt, end).select(p.at, p.at.constant(end)).apply(Op::maximum, 0));
}

// Mirrored at the edges of the image: the middles of the outer pixels with aligned corners, or their far sides.
Position reflect(const Position& p, bool corners) {
  const double low = corners ? 0 : -0.5, span = corners ? p.size - 1 : p.size;
  if (span == 0) return p.with(p.at.constant(0));
  const Expr distance = (p.at - low).apply(Op::abs);
  const Expr rest = distance.apply(Op::fmod, span);
  const Expr is_odd = (distance / span).apply(Op::floor).apply(Op::fmod, 2).apply(Op::ne, 0);
  return p.with(is_odd.select(span - rest, rest) + low);
}

// What lies outside of the image: 0, or what the image has elsewhere.
struct Padding {
  int64_t mode;
  bool corners;
  bool of_volume;

  Position inside(const Position& p) const {
    if (mode == kZeros) return p;
    const Position reflected = mode == kReflection ? reflect(p, corners) : p;
    return of_volume ? clamp_to_far_border(reflected) : clamp_to_border(reflected);
  }
};

// Elements of x[N, sizes.., C] at positions of shape [N, places..], 0 outside of the image.
class Sampler {
 public:
  Sampler(Call& call, Value* image, size_t spatial)
      : call_(call), image_(image), spatial_(spatial) {
    const ir::Dim& batch = image->type.shape[0];
    ir::Shape shape(spatial + 1, ir::Dim(1));
    shape[0] = batch;
    batch_ = call.builder().reshape(iota(call, batch), shape);
  }

  Expr take(const std::vector<Position>& positions) const {
    const auto [value, inside] = find(positions);
    return inside.select(value, value.constant(0));
  }

  // Times a weight. Of a volume what lies outside counts as 0 even if the weight is NaN, as that of an infinite position
  // is; of an image, PyTorch multiplies.
  Expr take(const std::vector<Position>& positions, const Expr& weight) const {
    if (spatial_ == 2) return take(positions) * channel(weight);
    const auto [value, inside] = find(positions);
    return inside.select(value * channel(weight), value.constant(0));
  }

 private:
  // The elements at the nearest positions inside of the image, and which of them are there.
  std::pair<Expr, Expr> find(const std::vector<Position>& positions) const {
    std::vector<Value*> operands{image_, batch_};
    std::optional<Expr> inside;
    for (const Position& p : positions) {
      operands.push_back(call_.builder().cast(clamp_to_border(p).at, DType::I64));
      const Expr here = p.at.apply(Op::ge, 0).apply(Op::bitwise_and, p.at.apply(Op::lt, p.size));
      inside = inside ? inside->apply(Op::bitwise_and, here) : here;
    }
    return {Expr(call_, call_.make(Op::gather_nd, operands, {{"axis", int64_t{0}}})),
            channel(*inside)};
  }

  Expr channel(const Expr& weight) const {
    return {call_, unsqueeze(call_, weight, static_cast<int64_t>(spatial_) + 1)};
  }

  Call& call_;
  Value* image_;
  size_t spatial_;
  Value* batch_ = nullptr;
};

// [-1, 1] -> pixels.
Position unnormalise(Call& call, const Expr& coordinate, const ir::Dim& size, bool corners) {
  call.expect(size.is_constant(), "the symbolic size " + size.str(), "a constant");
  const auto extent = static_cast<double>(size.constant());
  const Expr at =
      corners ? (coordinate + 1) * ((extent - 1) / 2) : ((coordinate + 1) * extent - 1) * 0.5;
  return {at, extent};
}

Expr component(Call& call, Value* grid, int64_t i) {
  Value* part = slice(call, grid, static_cast<int64_t>(grid->type.rank()) - 1, i, 1);
  return {call, call.builder().reshape(
                    part, ir::Shape(part->type.shape.begin(), part->type.shape.end() - 1))};
}

// Along one axis the pixels around a position, and what each counts.
struct Tap {
  Position position;
  Expr weight;
};
using Taps = std::vector<Tap>;

Taps linear_taps(const Position& p) {
  const Position before = p.with(p.at.apply(Op::floor));
  const Expr share = p.at - before.at;
  return {{before, 1 - share}, {p.with(before.at + 1), share}};
}

// Keys' cubic convolution with a = -3/4; pixels outside are looked for one by one.
Taps cubic_taps(const Position& p, const Padding& padding) {
  constexpr double kA = -0.75;
  const Expr before = p.at.apply(Op::floor), share = p.at - before;
  const auto inner = [](const Expr& x) { return (x * (kA + 2) - (kA + 3)) * x * x + 1; };
  const auto outer = [](const Expr& x) { return ((x * kA - 5 * kA) * x + 8 * kA) * x - 4 * kA; };
  const Expr rest = 1 - share;
  const Expr weights[] = {outer(share + 1), inner(share), inner(rest), outer(rest + 1)};
  Taps taps;
  for (int i = 0; i < 4; ++i)
    taps.push_back({padding.inside(p.with(before + (i - 1))), weights[i]});
  return taps;
}

// The weighted sum over all combinations of taps, those of the last axis the fastest.
Expr weighted_sum(const Sampler& sampler, const std::vector<Taps>& taps) {
  std::optional<Expr> sum;
  size_t combinations = 1;
  for (const Taps& along : taps) combinations *= along.size();
  for (size_t n = 0; n < combinations; ++n) {
    std::vector<Position> positions;
    std::optional<Expr> weight;
    size_t rest = n, left = combinations;
    for (const Taps& along : taps) {
      left /= along.size();
      const Tap& tap = along[rest / left];
      rest %= left;
      positions.push_back(tap.position);
      weight = weight ? *weight * tap.weight : tap.weight;
    }
    const Expr term = sampler.take(positions, *weight);
    sum = sum ? *sum + term : term;
  }
  return *sum;
}

Expr sample(const Sampler& sampler, std::vector<Position> positions, int64_t mode,
            const Padding& padding) {
  std::vector<Taps> taps;
  for (Position& p : positions) {
    if (mode == kBicubic) {
      taps.push_back(cubic_taps(p, padding));
      continue;
    }
    p = padding.inside(p);
    if (mode == kNearest) p = p.with(p.at.apply(Op::round));
    taps.push_back(linear_taps(p));
  }
  return mode == kNearest ? sampler.take(positions) : weighted_sum(sampler, taps);
}

Value* import_grid_sampler(Call& call) {
  call.compute_in_f32();
  Value *input = call.tensor("input"), *grid = call.tensor("grid");
  const int64_t mode = call.integer("interpolation_mode");
  const size_t rank = input->type.rank(), spatial = rank - 2;
  const Padding padding{call.integer("padding_mode"), call.boolean_or("align_corners", false),
                        spatial == 3};
  call.expect(rank == 4 || rank == 5, "rank " + std::to_string(rank), "4 or 5");
  call.expect(mode != kBicubic || spatial == 2, "bicubic interpolation of volumes", "images");
  std::vector<Position> positions;
  for (size_t i = 0; i < spatial; ++i) {
    const Expr coordinate = component(call, grid, static_cast<int64_t>(spatial - 1 - i));
    positions.push_back(unnormalise(call, coordinate, input->type.shape[i + 2], padding.corners));
  }
  const auto last = static_cast<int64_t>(rank) - 1;
  const Sampler sampler(call, move_axis(call, input, 1, last), spatial);
  return move_axis(call, sample(sampler, std::move(positions), mode, padding), last, 1);
}

// The middles of n pixels, or with aligned corners n places from end to end, over [-1, 1]; rounded as PyTorch does.
Value* pixel_places(Call& call, int64_t n, bool align_corners, DType dtype) {
  std::byte* data = nullptr;
  ir::Literal literal = ir::Literal::allocate(dtype, {n}, &data);
  const auto fill = [&](auto zero) {
    using Real = decltype(zero);
    const Real step = n > 1 ? Real(2) / static_cast<Real>(n - 1) : 0;
    for (int64_t i = 0; i < n; ++i) {
      Real place = i < n / 2 ? Real(-1) + step * static_cast<Real>(i)
                             : Real(1) - step * static_cast<Real>(n - 1 - i);
      if (!align_corners) place = place * static_cast<Real>(n - 1) / static_cast<Real>(n);
      ir::Literal::set(data, dtype, i, n > 1 ? place : 0);
    }
  };
  if (dtype == DType::F64) {
    fill(double{});
  } else {
    fill(float{});
  }
  return call.builder().constant(std::move(literal));
}

// [N, d, d + 1] matrices -> [N, sizes.., d]: where the matrix takes each pixel. Its columns are for x, y, z and 1.
Value* import_affine_grid(Call& call) {
  Value* theta = call.tensor("theta");
  const std::vector<Dim> size = call.dims("size");
  const int64_t spatial = static_cast<int64_t>(size.size()) - 2;
  call.expect((spatial == 2 || spatial == 3) && is_floating(theta->type.dtype),
              std::to_string(size.size()) + " sizes", "4 or 5");
  const bool align_corners = call.boolean_or("align_corners", false);
  const DType dtype = theta->type.dtype;
  const auto coefficient = [&](int64_t axis) {
    ir::Shape shape{theta->type.shape[0]};
    shape.insert(shape.end(), static_cast<size_t>(spatial), Dim(1));
    shape.push_back(spatial);
    return Expr(call, call.builder().reshape(slice(call, theta, 2, axis, 1), shape));
  };
  std::optional<Expr> sum;
  ir::Shape result{theta->type.shape[0]};
  for (int64_t axis = 0; axis < spatial; ++axis) {
    const Dim& n = size[size.size() - 1 - static_cast<size_t>(axis)];
    call.expect(n.is_constant() && n.constant() >= 1, n.str() + " pixels", "a size that is known");
    ir::Shape shape(static_cast<size_t>(axis) + 2, Dim(1));
    shape[0] = n;
    const Expr place(call, call.builder().reshape(
                               pixel_places(call, n.constant(), align_corners, dtype), shape));
    const Expr term = place * coefficient(axis);
    sum = sum ? *sum + term : term;
  }
  return *sum + coefficient(spatial);
}

constexpr Row kRows[] = {
    {"aten.affine_grid_generator.default", import_affine_grid},
    {"aten.grid_sampler.default", import_grid_sampler},
    {"aten.grid_sampler_2d.default", import_grid_sampler},
    {"aten.grid_sampler_3d.default", import_grid_sampler},
};

}  // namespace

Rows grid_sample_rows() { return kRows; }

}  // namespace kiln::import
