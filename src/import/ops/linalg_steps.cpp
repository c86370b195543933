// The steps of factorisations and solutions.
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

Value* scalars(Call& call, Value* x) {
  return call.builder().reshape(x, ir::Shape(x->type.shape.begin(), x->type.shape.end() - 2));
}

void check_all(Call& call, Value* condition) {
  Value* all = reduce(call, Op::reduce_min, condition, range(0, rank_of(condition)), false);
  call.make(Op::check_nonzero, {call.builder().cast(all, DType::I32)},
            {{"operator", call.operation()}});
}

DType dtype_of(Call& call, std::string_view name) { return call.tensor(name)->type.dtype; }

Elimination eliminate(Call& call, Value* a, Value* right) {
  const int64_t n = rows_of(call, a), axis = rank_of(a) - 2;
  ir::Shape diagonal(a->type.shape.begin(), a->type.shape.end() - 1), leading = diagonal;
  leading.pop_back();
  if (n == 0) {
    const auto filled = [&](DType dtype, const ir::Shape& shape) {
      return call.builder().expand(call.builder().scalar(dtype, 0), shape);
    };
    return {right, filled(DType::F64, diagonal), filled(DType::Bool, leading)};
  }
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
  Value* all = pivots.size() == 1 ? pivots[0] : call.make(Op::concat, pivots, {{"axis", axis + 1}});
  return {solution, call.builder().reshape(all, diagonal), scalars(call, *is_odd)};
}

Value* identity_like(Call& call, Value* a) {
  const int64_t n = rows_of(call, a);
  const Expr column_numbers(call, iota(call, ir::Dim(n)));
  Value* one = call.builder().cast(row_numbers(call, n).apply(Op::eq, column_numbers), DType::F64);
  return call.builder().expand(one, a->type.shape);
}

Value* first_failure(Call& call, const Expr& fails) {
  const auto axis = rank_of(fails) - 1;
  const ir::Shape& shape = fails.value()->type.shape;
  if (shape.back().is_constant(0))
    return call.builder().expand(call.builder().scalar(DType::I32, 0),
                                 ir::Shape(shape.begin(), shape.end() - 1));
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
  return n == 1 ? rows[0] : call.make(Op::concat, rows, {{"axis", axis}});
}

void broadcast_matrices(Call& call, Value*& a, Value*& b) {
  const ir::Shape shape =
      ir::broadcast_shapes(ir::Shape(a->type.shape.begin(), a->type.shape.end() - 2),
                           ir::Shape(b->type.shape.begin(), b->type.shape.end() - 2));
  for (Value** x : {&a, &b}) {
    ir::Shape whole = shape;
    whole.insert(whole.end(), (*x)->type.shape.end() - 2, (*x)->type.shape.end());
    *x = call.builder().expand(*x, whole);
  }
}

}  // namespace kiln::import
