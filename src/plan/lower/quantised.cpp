#include "plan/lower/quantised.h"

#include <array>
#include <limits>

#include "ir/scalar.h"
#include "plan/form/fold.h"

namespace kiln::plan {
namespace {

using ir::Op;

// Between i8 and u8.
constexpr int64_t kShift = 128;
// u8 less a zero point, times i8.
constexpr int64_t kLargestProduct = int64_t{255} * 128;

// Elements of a literal at the points of loops: base + the strides times the indices.
struct Walk {
  const ir::Literal* literal = nullptr;
  int64_t base = 0;
  std::vector<int64_t> strides;
};

const ir::Literal* constant_of(const ir::Value* value) {
  if (value == nullptr || value->producer == nullptr || value->producer->op != Op::constant)
    return nullptr;
  return &value->producer->attr<ir::Literal>("value");
}

std::optional<Walk> walk(const ir::Value* value, const Indices& at,
                         const std::vector<Loop>& loops) {
  Walk result;
  result.literal = constant_of(value);
  if (result.literal == nullptr) return std::nullopt;
  const auto affine = as_affine(linearize(value->type.shape, at), loops);
  if (!affine || !affine->base.is_constant()) return std::nullopt;
  result.base = affine->base.constant();
  for (const ir::Dim& stride : affine->strides) {
    if (!stride.is_constant()) return std::nullopt;
    result.strides.push_back(stride.constant());
  }
  return result;
}

// Of an operand of a dequantize beside x.
std::optional<Walk> block_walk(const Quantised& weight, const ir::Value* value,
                               const std::vector<Loop>& loops) {
  const ir::Shape& x = weight.node->output()->type.shape;
  return walk(value, block_indices(value->type.shape, x, weight.at), loops);
}

std::optional<std::vector<int64_t>> constant_extents(const std::vector<Loop>& loops) {
  std::vector<int64_t> extents;
  for (const Loop& loop : loops) {
    if (!loop.extent().is_constant()) return std::nullopt;
    extents.push_back(loop.extent().constant());
  }
  return extents;
}

// Calls body(point, offset in each of the literals) for all points, in order.
template <typename Body>
void for_each_point(const std::vector<int64_t>& extents, const std::vector<const Walk*>& walks,
                    const Body& body) {
  int64_t points = 1;
  for (int64_t extent : extents) points *= extent;
  std::vector<int64_t> index(extents.size(), 0), offsets;
  for (const Walk* walk : walks) offsets.push_back(walk == nullptr ? 0 : walk->base);
  for (int64_t point = 0; point < points; ++point) {
    body(point, offsets);
    for (size_t k = extents.size(); k-- > 0;) {
      const bool wraps = ++index[k] == extents[k];
      for (size_t w = 0; w < walks.size(); ++w) {
        if (walks[w] != nullptr) offsets[w] += walks[w]->strides[k] * (wraps ? 1 - extents[k] : 1);
      }
      if (!wraps) break;
      index[k] = 0;
    }
  }
}

int64_t byte_at(const ir::Literal& literal, int64_t offset) {
  return literal.dtype == DType::U8 ? literal.data<uint8_t>()[offset]
                                    : literal.data<int8_t>()[offset];
}

ir::Literal scaled(const ir::Literal& sums, int64_t factor) {
  std::byte* data = nullptr;
  ir::Literal result = ir::Literal::allocate(DType::I32, sums.shape, &data);
  for (int64_t i = 0; i < sums.elements(); ++i)
    ir::Literal::set_int(data, DType::I32, i, sums.as_int(i) * factor);
  return result;
}

// The products of a known scale and those of the channels, as far as they are known: one load.
Expr scale_product(Lowering& lowering, const IntegerSum& product, DType dtype) {
  const Expr left = scale_of(lowering, product.left.operand, dtype);
  const Expr right = scale_of(lowering, product.right, dtype);
  const auto known = as_scalar(left);
  const ir::Literal* scales =
      product.right.scale() == nullptr ? nullptr : constant_of(product.right.scale());
  const bool by_channel = scales != nullptr && !scales->replaceable && scales->elements() > 1 &&
                          scales->elements() == product.weight.sums.elements();
  if (!known || !by_channel) return apply(Op::mul, {left, right});
  std::byte* data = nullptr;
  ir::Literal products = ir::Literal::allocate(dtype, {scales->elements()}, &data);
  for (int64_t i = 0; i < scales->elements(); ++i) {
    const ir::Scalar scale = ir::convert(ir::element(*scales, i), dtype);
    const std::array factors = {*known, scale};
    ir::set_element(data, i, ir::evaluate(Op::mul, factors, false));
  }
  const BufferId buffer =
      lowering.add_constant(product.right.scale()->name + "_products", std::move(products));
  return load_at(buffer, dtype, {product.channel});
}

bool is_uniform(const Expr& expr, const std::vector<Loop>& loops) {
  bool result = true;
  visit(expr, [&](const ExprNode& node) {
    if (node.kind != ExprKind::Position) return;
    for (const Loop& loop : loops) result &= !node.index.mentions(loop.index);
  });
  return result;
}

// What a value is a view of; `at` becomes the position in that.
const ir::Value* behind_views(const ir::Value* value, Indices& at) {
  while (value->producer != nullptr && is_view(value->producer->op)) {
    at = view_indices(*value->producer, at);
    value = value->producer->input(0);
  }
  return value;
}

// The position in an operand that is broadcast.
Indices broadcast_indices(const ir::Shape& own, const Indices& at) {
  Indices indices(at.end() - static_cast<std::ptrdiff_t>(own.size()), at.end());
  for (size_t i = 0; i < own.size(); ++i) {
    if (own[i].is_constant(1)) indices[i] = 0;
  }
  return indices;
}

}  // namespace

std::optional<Quantised> quantised(const ir::Value* value, Indices at) {
  value = behind_views(value, at);
  const ir::Node* node = value->producer;
  if (node == nullptr || (node->op != Op::dequantize && node->op != Op::cast)) return std::nullopt;
  Quantised result{node, std::move(at)};
  const bool is_byte = result.dtype() == DType::I8 || result.dtype() == DType::U8;
  const ir::Value* zero = result.zero_point();
  const bool has_integer_zero = zero == nullptr || is_integer(zero->type.dtype);
  if (!is_byte || !has_integer_zero || !is_floating(node->output()->type.dtype))
    return std::nullopt;
  return result;
}

Indices block_indices(const ir::Shape& own, const ir::Shape& x, const Indices& at) {
  const size_t offset = x.size() - own.size();
  Indices indices;
  for (size_t i = 0; i < own.size(); ++i) {
    const ir::Dim& size = x[offset + i];
    if (own[i].is_constant(1)) {
      indices.emplace_back(0);
    } else if (ir::provably_equal(own[i], size)) {
      indices.push_back(at[offset + i]);
    } else {
      indices.push_back(ir::floordiv(at[offset + i], ir::floordiv(size, own[i])));
    }
  }
  return indices;
}

Expr scale_of(Lowering& lowering, const Quantised& operand, DType dtype) {
  const ir::Value* scale = operand.scale();
  if (scale == nullptr) return constant(dtype, 1);
  const ir::Shape& x = operand.node->output()->type.shape;
  return cast(lowering.load(scale, block_indices(scale->type.shape, x, operand.at)), dtype);
}

Expr zero_point_of(Lowering& lowering, const Quantised& operand) {
  const ir::Value* zero = operand.zero_point();
  if (zero == nullptr) return constant_int(DType::I32, 0);
  const ir::Shape& x = operand.node->output()->type.shape;
  return cast(lowering.load(zero, block_indices(zero->type.shape, x, operand.at)), DType::I32);
}

std::optional<SignedWeight> signed_weight(const Quantised& weight, const std::vector<Loop>& loops,
                                          ZeroPoint zero_point) {
  const auto extents = constant_extents(loops);
  const auto elements = walk(weight.node->input(0), weight.at, loops);
  if (!extents || !elements || elements->literal->replaceable) return std::nullopt;
  std::optional<Walk> zeros;
  if (weight.zero_point() != nullptr && zero_point == ZeroPoint::Subtracted) {
    zeros = block_walk(weight, weight.zero_point(), loops);
    if (!zeros || zeros->literal->replaceable) return std::nullopt;
  }
  const bool is_moved = zero_point == ZeroPoint::Kept && weight.dtype() == DType::U8;
  int64_t steps = 1;
  for (size_t i = 1; i < extents->size(); ++i) steps *= (*extents)[i];
  if (steps > std::numeric_limits<int32_t>::max() / kLargestProduct) return std::nullopt;

  std::byte *values = nullptr, *sums = nullptr;
  SignedWeight result{ir::Literal::allocate(DType::I8, *extents, &values),
                      ir::Literal::allocate(DType::I32, {extents->front()}, &sums)};
  auto* bytes = reinterpret_cast<int8_t*>(values);
  auto* totals = reinterpret_cast<int32_t*>(sums);
  bool fits = true;
  for_each_point(*extents, {&*elements, zeros ? &*zeros : nullptr},
                 [&](int64_t point, const std::vector<int64_t>& at) {
                   const int64_t shift = is_moved ? kShift : 0;
                   const int64_t zero = zeros ? zeros->literal->as_int(at[1]) : shift;
                   const int64_t value = byte_at(*elements->literal, at[0]) - zero;
                   fits &= value >= -kShift && value < kShift;
                   bytes[point] = static_cast<int8_t>(value);
                   totals[point / steps] += static_cast<int8_t>(value);
                 });
  if (!fits) return std::nullopt;
  return result;
}

std::optional<ir::Literal> floating_weight(const Quantised& weight, const std::vector<Loop>& loops,
                                           DType dtype) {
  const auto extents = constant_extents(loops);
  const auto elements = walk(weight.node->input(0), weight.at, loops);
  if (weight.scale() == nullptr) return std::nullopt;
  const auto scales = block_walk(weight, weight.scale(), loops);
  const ir::Value* zero_point = weight.zero_point();
  std::optional<Walk> zeros;
  if (zero_point != nullptr) zeros = block_walk(weight, zero_point, loops);
  if (!extents || !elements || !scales || (zero_point != nullptr && !zeros)) return std::nullopt;
  const DType wide = compute_dtype(scales->literal->dtype);
  std::byte* data = nullptr;
  ir::Literal result = ir::Literal::allocate(dtype, *extents, &data);
  result.replaceable = elements->literal->replaceable || scales->literal->replaceable;
  for_each_point(*extents, {&*elements, &*scales, zeros ? &*zeros : nullptr},
                 [&](int64_t point, const std::vector<int64_t>& at) {
                   const int64_t zero = zeros ? zeros->literal->as_int(at[2]) : 0;
                   const auto value =
                       static_cast<double>(byte_at(*elements->literal, at[0]) - zero);
                   const double product = value * scales->literal->as_double(at[1]);
                   const ir::Scalar rounded = ir::make_scalar(wide, product);
                   const DType own = weight.node->output()->type.dtype;
                   ir::set_element(data, point, ir::convert(ir::convert(rounded, own), dtype));
                 });
  return result;
}

ByteOperand byte_operand(Lowering& lowering, const ir::Value* value, const Indices& at,
                         const std::vector<Loop>& loops, DType dtype) {
  Quantised operand = *quantised(value, at);
  ByteOperand result{{}, zero_point_of(lowering, operand), operand};
  if (operand.dtype() != dtype) {
    const Expr shift = constant_int(DType::I32, dtype == DType::U8 ? kShift : -kShift);
    result.zero_point = apply(Op::add, {result.zero_point, shift});
  } else if (auto view = lowering.view(operand.node->input(0), operand.at, loops)) {
    result.view = std::move(*view);
    return result;
  }
  const BufferId copy = lowering.byte_copy(value, dtype);
  result.view = lowering.dense_view(copy, value->type.shape, at, loops);
  return result;
}

Expr byte_element(Lowering& lowering, const Quantised& operand, DType dtype) {
  const Expr byte = cast(lowering.load(operand.node->input(0), operand.at), DType::I32);
  if (operand.dtype() == dtype) return byte;
  return apply(Op::add, {byte, constant_int(DType::I32, dtype == DType::U8 ? kShift : -kShift)});
}

Expr dequantised_sum(Lowering& lowering, const IntegerSum& product, DType dtype) {
  Expr sum = product.sum;
  const Expr& zero_point = product.left.zero_point;
  const ir::Literal& weight_sums = product.weight.sums;
  const std::string name = product.right.node->input(0)->name + "_sums";
  const auto subtract = [&](const Expr& what) { sum = apply(Op::sub, {sum, what}); };
  if (const auto zero = as_scalar(zero_point); zero && zero->integer != 0) {
    const BufferId sums = lowering.add_constant(name, scaled(weight_sums, zero->integer));
    subtract(load_at(sums, DType::I32, {product.channel}));
  } else if (!zero) {
    const BufferId sums = lowering.add_constant(name, weight_sums);
    subtract(apply(Op::mul, {zero_point, load_at(sums, DType::I32, {product.channel})}));
  }
  return apply(Op::mul, {cast(std::move(sum), dtype), scale_product(lowering, product, dtype)});
}

bool is_uniform_along(Lowering& lowering, const Quantised& operand,
                      const std::vector<Loop>& loops) {
  return is_uniform(scale_of(lowering, operand, DType::F32), loops) &&
         is_uniform(zero_point_of(lowering, operand), loops);
}

// --- Float8 ---

std::optional<Float8Operand> float8_operand(const ir::Value* value, Indices at) {
  value = behind_views(value, at);
  const ir::Node* node = value->producer;
  if (node == nullptr || !is_floating(value->type.dtype)) return std::nullopt;
  if (node->op == Op::cast) {
    const ir::Value* from = node->input(0);
    if (value->type.dtype == DType::F8E4M3) return std::nullopt;
    if (from->type.dtype != DType::F8E4M3) return float8_operand(from, std::move(at));
    from = behind_views(from, at);
    return Float8Operand{from, std::move(at), {}};
  }
  if (node->op != Op::mul && node->op != Op::div) return std::nullopt;
  for (size_t i = 0; i < (node->op == Op::mul ? 2 : 1); ++i) {
    const ir::Value *codes = node->input(i), *scale = node->input(1 - i);
    auto result = float8_operand(codes, broadcast_indices(codes->type.shape, at));
    if (!result) continue;
    result->scales.push_back(
        {scale, broadcast_indices(scale->type.shape, at), node->op == Op::div});
    return result;
  }
  return std::nullopt;
}

Expr scale_of(Lowering& lowering, const Float8Operand& operand) {
  Expr product = constant(DType::F32, 1);
  for (const auto& [value, at, divides] : operand.scales) {
    Expr scale = cast(lowering.load(value, at), DType::F32);
    product = apply(divides ? Op::div : Op::mul, {std::move(product), std::move(scale)});
  }
  return product;
}

bool is_uniform_along(Lowering& lowering, const Float8Operand& operand,
                      const std::vector<Loop>& loops) {
  return is_uniform(scale_of(lowering, operand), loops);
}

}  // namespace kiln::plan
