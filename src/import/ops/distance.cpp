// Geometry: distances and cross products.
#include <cmath>

#include "import/ops/common.h"

namespace kiln::import {
namespace {

// |a|^2 - 2 a b + |b|^2, of which the last digits of near points are lost.
Value* distance_by_products(Call& call, Value* a, Value* b) {
  const auto squares = [&](Value* x) {
    const Expr rows(call, x);
    return Expr(call, reduce(call, Op::reduce_sum, rows * rows,
                             {static_cast<int64_t>(x->type.rank()) - 1}, false));
  };
  const Expr product(call, call.make(Op::matmul, {a, b}, {{"transpose_b", true}}));
  const Expr of_a = squares(a), of_b = squares(b);
  const auto rank_a = static_cast<int64_t>(a->type.rank()),
             rank_b = static_cast<int64_t>(b->type.rank());
  const Expr sum = product * -2 + Expr(call, unsqueeze(call, of_a, rank_a - 1)) +
                   Expr(call, unsqueeze(call, of_b, rank_b - 2));
  return sum.apply(Op::maximum, 0).apply(Op::sqrt);
}

// PyTorch takes products of many rows, or if it is told to; they make NaN of infinities. Where a size is not known they
// are not taken.
bool takes_products(Call& call, const Value* a, const Value* b) {
  enum Mode { IfManyRows, Always, Never };
  constexpr int64_t kFewRows = 25;
  if (!is_floating(a->type.dtype)) return false;
  const int64_t mode = call.integer_or("compute_mode", IfManyRows);
  const auto many = [](const Value* x) {
    return x->type.shape[x->type.rank() - 2].lower_bound() > kFewRows;
  };
  return mode == Always || (mode == IfManyRows && (many(a) || many(b)));
}

Value* import_euclidean(Call& call) {
  return distance_by_products(call, call.tensor("x1"), call.tensor("x2"));
}

// The norm of differences along the last axis. Of order 0 it is NaN where one of them is: elsewhere PyTorch counts that
// as one that differs.
Value* norm_of(Call& call, const Expr& difference, double order) {
  call.expect(order >= 0, "p = " + std::to_string(order), "0 or more");
  const Expr magnitude = difference.apply(Op::abs);
  const auto last = static_cast<int64_t>(magnitude.value()->type.rank()) - 1;
  if (order == 0) {
    const Expr differs = magnitude.apply(Op::ceil).apply(Op::minimum, 1);
    return reduce(call, Op::reduce_sum, differs, {last}, false);
  }
  return vector_norm(call, magnitude, order, {last}, false);
}

// Row i of a against row j of b, the norm of their difference.
Value* import_cdist(Call& call) {
  Value *a = call.tensor("x1"), *b = call.tensor("x2");
  const double order = call.real_or("p", 2);
  const auto rank = static_cast<int64_t>(a->type.rank());
  call.expect(rank >= 2 && b->type.rank() >= 2, "rank " + std::to_string(rank), "2 or more");
  if (order == 2 && takes_products(call, a, b)) return distance_by_products(call, a, b);
  const Expr rows(call, unsqueeze(call, a, rank - 1));
  const Expr columns(call, unsqueeze(call, b, static_cast<int64_t>(b->type.rank()) - 2));
  const Expr difference = rows - columns;
  if (!std::isinf(order)) return norm_of(call, difference, order);
  // The largest difference of those that are numbers.
  return norm_of(call, difference.apply(Op::isnan).select(difference.constant(0), difference),
                 order);
}

// Every row against all behind it.
Value* import_pdist(Call& call) {
  Value* x = call.tensor("self");
  call.expect(x->type.rank() == 2 && x->type.shape[0].is_constant(), shape_text(x->type.shape),
              "rows whose number is known");
  const int64_t count = x->type.shape[0].constant();
  constexpr int64_t kMost = 1 << 11;
  call.expect(count <= kMost, std::to_string(count) + " rows", "at most " + std::to_string(kMost));
  const auto rows_of = [&](bool is_first) {
    std::vector<int64_t> rows;
    for (int64_t i = 0; i < count; ++i)
      for (int64_t j = i + 1; j < count; ++j) rows.push_back(is_first ? i : j);
    return Expr(call,
                call.make(Op::gather, {x, index_constant(call, rows)}, {{"axis", int64_t{0}}}));
  };
  return norm_of(call, rows_of(true) - rows_of(false), call.real_or("p", 2));
}

// Component i of a vector of three, for each i shifted by `shift`.
Expr rotate(Call& call, Value* x, int64_t axis, int64_t shift) {
  Value* behind = slice(call, x, axis, 0, shift);
  Value* front = slice(call, x, axis, shift, 3 - shift);
  return {call, call.make(Op::concat, {front, behind}, {{"axis", axis}})};
}

// (a1 b2 - a2 b1, a2 b0 - a0 b2, a0 b1 - a1 b0)
Value* import_cross(Call& call) {
  const std::vector<Value*> values =
      promote(call.builder(), {call.operand("self"), call.operand("other")});
  const ir::Shape shape = ir::broadcast_shapes(values[0]->type.shape, values[1]->type.shape);
  Value* a = call.builder().expand(values[0], shape);
  Value* b = call.builder().expand(values[1], shape);
  const int64_t axis = call.axis_or("dim", shape.size(), -1);
  call.expect(!shape.empty() && shape[axis].is_constant(3), "shape " + shape_text(shape),
              "3 along dim " + std::to_string(axis));
  return rotate(call, a, axis, 1) * rotate(call, b, axis, 2) -
         rotate(call, a, axis, 2) * rotate(call, b, axis, 1);
}

constexpr Row kRows[] = {
    {"aten._cdist_forward.default", import_cdist},
    {"aten._pdist_forward.default", import_pdist},
    {"aten.pdist.default", import_pdist},
    {"aten._euclidean_dist.default", import_euclidean},
    {"aten.cdist.default", import_cdist},
    {"aten.linalg_cross.default", import_cross},
};

}  // namespace

Rows distance_rows() { return kRows; }

}  // namespace kiln::import
