// The steps of factorisations and solutions.
#include <algorithm>
#include <optional>

#include "import/ops/linalg.h"

namespace kiln::import {

int64_t rank_of(const Value* x) { return static_cast<int64_t>(x->type.rank()); }

Value* wide_matrix(Call& call, std::string_view name) {
  Value* x = call.tensor(name);
  call.expect(rank_of(x) >= 2 && is_floating(x->type.dtype), x->type.str(),
              "matrices of floating-point numbers");
  return call.builder().cast(x, DType::F64);
}

Sides sides_of(Call& call, const Value* x) {
  constexpr int64_t kMostSide = 1024;
  const ir::Dim &rows = x->type.shape[x->type.rank() - 2], &columns = x->type.shape.back();
  call.expect(rows.is_constant() && columns.is_constant(), shape_text(x->type.shape),
              "matrices of a known size");
  const int64_t m = rows.constant(), n = columns.constant();
  call.expect(std::min(m, n) <= kMostRows && std::max(m, n) <= kMostSide, shape_text(x->type.shape),
              "sides of at most " + std::to_string(kMostRows) + " and " +
                  std::to_string(kMostSide) + ", because each of the shorter is a step");
  return {m, n, std::min(m, n)};
}

int64_t rows_of(Call& call, const Value* x) {
  const ir::Dim &rows = x->type.shape[x->type.rank() - 2], &columns = x->type.shape.back();
  call.expect(rows.is_constant() && columns == rows, shape_text(x->type.shape),
              "square matrices of a known size");
  call.expect(rows.constant() <= kMostRows, rows.str() + " rows",
              "at most " + std::to_string(kMostRows) + ", because each is a step");
  return rows.constant();
}

Value* row(Call& call, Value* x, int64_t i) { return slice(call, x, rank_of(x) - 2, i, 1); }
Value* column(Call& call, Value* x, int64_t i) { return slice(call, x, rank_of(x) - 1, i, 1); }
Value* transposed(Call& call, Value* x) {
  return move_axis(call, x, rank_of(x) - 2, rank_of(x) - 1);
}
Expr row_numbers(Call& call, int64_t n) {
  return {call, unsqueeze(call, iota(call, ir::Dim(n)), 1)};
}

Value* scalars(Call& call, Value* x) { return call.builder().reshape(x, leading(x)); }

ir::Shape leading(const Value* x) { return {x->type.shape.begin(), x->type.shape.end() - 2}; }

ir::Shape with(ir::Shape shape, std::initializer_list<int64_t> sizes) {
  for (const int64_t size : sizes) shape.emplace_back(size);
  return shape;
}

Value* filled(Call& call, DType dtype, const ir::Shape& shape, double value) {
  return call.builder().expand(call.builder().scalar(dtype, value), shape);
}

Value* joined(Call& call, const std::vector<Value*>& parts, int64_t axis) {
  return parts.size() == 1 ? parts[0] : call.make(Op::concat, parts, {{"axis", axis}});
}

Value* nothing(Call& call, DType dtype) { return filled(call, dtype, {0}, 0); }

Value* rectangle(Call& call, const ir::Shape& front, int64_t rows, int64_t columns) {
  const Expr one = row_numbers(call, rows).apply(Op::eq, {call, iota(call, ir::Dim(columns))});
  return call.builder().expand(call.builder().cast(one, DType::F64), with(front, {rows, columns}));
}

Expr for_matrices(Call& call, Value* numbers, int axes) {
  for (; axes > 0; --axes) numbers = unsqueeze(call, numbers, rank_of(numbers));
  return {call, numbers};
}

DType dtype_of(Call& call, std::string_view name) { return call.tensor(name)->type.dtype; }

Elimination eliminate(Call& call, Value* a, Value* right) {
  const int64_t n = rows_of(call, a), axis = rank_of(a) - 2;
  const ir::Shape diagonal(a->type.shape.begin(), a->type.shape.end() - 1);
  if (n == 0)
    return {right, filled(call, DType::F64, diagonal, 0), filled(call, DType::Bool, leading(a), 0)};
  Value* m = call.make(Op::concat, {a, right}, {{"axis", axis + 1}});
  std::vector<Value*> pivots;
  std::optional<Expr> is_odd;
  for (int64_t j = 0; j < n; ++j) {
    Value* below = slice(call, column(call, m, j), axis, j, n - j);
    const Expr largest(call, call.make(Op::argmax, {Expr(call, below).apply(Op::abs)},
                                       {{"axis", axis}, {"keepdim", true}}));
    const Expr found = largest + static_cast<double>(j);
    const Expr numbers = row_numbers(call, n), here = numbers.constant(static_cast<double>(j));
    const Expr order = numbers.apply(Op::eq, here)
                           .select(found, numbers.apply(Op::eq, found).select(here, numbers));
    m = call.make(Op::gather_elements, {m, call.builder().expand(order, m->type.shape)},
                  {{"axis", axis}});
    const Expr first(call, row(call, m, j)), pivot(call, column(call, first, j));
    const Expr swapped = found.apply(Op::ne, static_cast<double>(j));
    is_odd = is_odd ? is_odd->apply(Op::ne, swapped) : swapped;
    pivots.push_back(pivot);
    // Below a pivot of 0 there is nothing to eliminate.
    const Expr divisor = pivot.apply(Op::eq, 0).select(pivot.constant(1), pivot);
    const Expr factor = Expr(call, column(call, m, j)) / divisor;
    const Expr others = numbers.apply(Op::eq, here).select(factor.constant(0), factor);
    m = numbers.apply(Op::eq, here).select(first / divisor, Expr(call, m) - others * first);
  }
  Value* solution = slice(call, m, axis + 1, n, m->type.shape.back() - n);
  Value* all = joined(call, pivots, axis + 1);
  return {solution, call.builder().reshape(all, diagonal), scalars(call, *is_odd)};
}

Value* identity_like(Call& call, Value* a) {
  const int64_t n = rows_of(call, a);
  return rectangle(call, leading(a), n, n);
}

Value* first_failure(Call& call, const Expr& fails) {
  const auto axis = rank_of(fails) - 1;
  const ir::Shape& shape = fails.value()->type.shape;
  if (shape.back().is_constant(0))
    return filled(call, DType::I32, {shape.begin(), shape.end() - 1}, 0);
  const Expr any(call, reduce(call, Op::reduce_max, fails, {axis}, false));
  Value* numbers = call.builder().cast(fails, DType::I32);
  const Expr place(call, call.make(Op::argmax, {numbers}, {{"axis", axis}, {"keepdim", false}}));
  return call.builder().cast(any.select(place + 1, place.constant(0)), DType::I32);
}

Value* substitute(Call& call, Value* a, Value* b, bool upper, bool unit) {
  const int64_t n = rows_of(call, a), axis = rank_of(a) - 2;
  if (n == 0) return b;
  std::vector<Value*> rows(n);
  for (int64_t step = 0; step < n; ++step) {
    const int64_t j = upper ? n - 1 - step : step;
    Value* here = column(call, a, j);
    Expr x(call, row(call, b, j));
    if (!unit) x = x / Expr(call, slice(call, here, axis, j, 1));
    rows[j] = x;
    b = Expr(call, b) - Expr(call, here) * x;
  }
  return joined(call, rows, axis);
}

void broadcast_matrices(Call& call, Value*& a, Value*& b) {
  const ir::Shape shape = ir::broadcast_shapes(leading(a), leading(b));
  for (Value** x : {&a, &b}) {
    ir::Shape whole = shape;
    whole.insert(whole.end(), (*x)->type.shape.end() - 2, (*x)->type.shape.end());
    *x = call.builder().expand(*x, whole);
  }
}

}  // namespace kiln::import
