// Sampling of images at positions that a grid gives.
#include <optional>

#include "import/ops/common.h"

namespace kiln::import {
namespace {

using ir::Dim;

// PyTorch's numbers for the modes.
constexpr int64_t kBilinear = 0, kNearest = 1;
constexpr int64_t kZeros = 0, kBorder = 1;

// One coordinate of the grid, in pixels along an axis of the image.
struct Position {
  Expr at;
  double size;
};

// Into the image; NaN counts as 0.
Position clamp_to_border(const Position& p) {
  return {p.at.apply(Op::ge, 0).select(p.at, p.at.constant(0)).apply(Op::minimum, p.size - 1),
          p.size};
}

// Elements of x[N, H, W, C] at rows and columns of shape [N, h, w]: 0 outside of the image.
class Sampler {
 public:
  Sampler(Call& call, Value* image) : call_(call), image_(image) {
    const ir::Dim& batch = image->type.shape[0];
    Value* index = call.make(
        Op::iota, {},
        {{"size", batch}, {"dtype", DType::I64}, {"start", ir::Dim(0)}, {"step", int64_t{1}}});
    batch_ = call.builder().reshape(index, {batch, 1, 1});
  }

  Expr take(const Position& row, const Position& column) const {
    const Expr value(call_,
                     call_.make(Op::gather_nd, {image_, batch_, index_of(row), index_of(column)},
                                {{"axis", int64_t{0}}}));
    const Expr inside = is_inside(row).apply(Op::bitwise_and, is_inside(column));
    return channel(inside).select(value, value.constant(0));
  }

  Expr channel(const Expr& weight) const { return {call_, unsqueeze(call_, weight, 3)}; }

 private:
  Expr is_inside(const Position& p) const {
    return p.at.apply(Op::ge, 0).apply(Op::bitwise_and, p.at.apply(Op::lt, p.size));
  }
  Value* index_of(const Position& p) const {
    return call_.builder().cast(clamp_to_border(p).at, DType::I64);
  }

  Call& call_;
  Value* image_;
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
  Value* part = slice(call, grid, 3, i, 1);
  return {call, call.builder().reshape(
                    part, ir::Shape(part->type.shape.begin(), part->type.shape.end() - 1))};
}

// The weighted sum of the four neighbours.
Expr bilinear(const Sampler& sampler, const Position& row, const Position& column) {
  const Position top{row.at.apply(Op::floor), row.size},
      left{column.at.apply(Op::floor), column.size};
  const Position bottom{top.at + 1, row.size}, right{left.at + 1, column.size};
  const Expr down = row.at - top.at, across = column.at - left.at;
  const auto corner = [&](const Position& y, const Position& x, const Expr& weight) {
    return sampler.take(y, x) * sampler.channel(weight);
  };
  return corner(top, left, (1 - down) * (1 - across)) + corner(top, right, (1 - down) * across) +
         corner(bottom, left, down * (1 - across)) + corner(bottom, right, down * across);
}

Expr nearest(const Sampler& sampler, const Position& row, const Position& column) {
  return sampler.take({row.at.apply(Op::round), row.size},
                      {column.at.apply(Op::round), column.size});
}

Value* import_grid_sampler(Call& call) {
  call.compute_in_f32();
  Value *input = call.tensor("input"), *grid = call.tensor("grid");
  const int64_t mode = call.integer("interpolation_mode"), padding = call.integer("padding_mode");
  call.expect(input->type.rank() == 4, "rank " + std::to_string(input->type.rank()), "4");
  call.expect(mode == kBilinear || mode == kNearest, "bicubic interpolation",
              "bilinear or nearest");
  call.expect(padding == kZeros || padding == kBorder, "padding by reflection", "zeros or border");
  const bool corners = call.boolean_or("align_corners", false);
  Position column = unnormalise(call, component(call, grid, 0), input->type.shape[3], corners);
  Position row = unnormalise(call, component(call, grid, 1), input->type.shape[2], corners);
  if (padding == kBorder) {
    column = clamp_to_border(column);
    row = clamp_to_border(row);
  }
  const Sampler sampler(call, call.builder().permute(input, {0, 2, 3, 1}));
  const Expr result =
      mode == kNearest ? nearest(sampler, row, column) : bilinear(sampler, row, column);
  return call.builder().permute(result, {0, 3, 1, 2});
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
};

}  // namespace

Rows grid_sample_rows() { return kRows; }

}  // namespace kiln::import
