// Factorisations, inverses and solutions of systems of equations with small matrices.
//
// Each column is a step, so that the number of rows is known and small; all is computed in f64, whose digits make up for
// those that elimination loses.
#include <algorithm>
#include <limits>
#include <optional>

#include "import/ops/common.h"

namespace kiln::import {
namespace {

constexpr int64_t kMostRows = 32;

int64_t rank_of(const Value* x) { return static_cast<int64_t>(x->type.rank()); }

// A matrix, or many: [.., rows, columns]. Results are rounded to `dtype` in the end.
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

// Without its last two axes, which are of size 1.
Value* scalars(Call& call, Value* x) {
  return call.builder().reshape(x, ir::Shape(x->type.shape.begin(), x->type.shape.end() - 2));
}

// PyTorch raises for a matrix that the operator has no result for.
void check_all(Call& call, Value* condition) {
  Value* all = reduce(call, Op::reduce_min, condition, range(0, rank_of(condition)), false);
  call.make(Op::check_nonzero, {call.builder().cast(all, DType::I32)},
            {{"operator", call.operation()}});
}

struct Elimination {
  Value* right;   // what is left of the right-hand sides: the solution
  Value* pivots;  // [.., n]
  Value* is_odd;  // bool [..]: whether an odd number of rows was swapped
};

// Gauss and Jordan: rows are swapped so that the largest element of a column divides.
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

// i32: the number of the first pivot, from 1, for which the test fails; 0 if none.
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

void check_pivots(Call& call, const Elimination& result) {
  check_all(call, Expr(call, result.pivots).apply(Op::ne, 0));
}

DType dtype_of(Call& call, std::string_view name) { return call.tensor(name)->type.dtype; }

Value* inverse(Call& call, std::string_view name, Value** info) {
  Value* a = wide_matrix(call, name);
  const Elimination result = eliminate(call, a, identity_like(call, a));
  if (info == nullptr || call.boolean_or("check_errors", false)) check_pivots(call, result);
  if (info != nullptr) *info = first_failure(call, Expr(call, result.pivots).apply(Op::eq, 0));
  return call.builder().cast(result.right, dtype_of(call, name));
}

const char* matrix_name(Call& call) { return call.has("A") ? "A" : "self"; }

Value* import_inverse(Call& call) { return inverse(call, matrix_name(call), nullptr); }
std::vector<Value*> import_inverse_ex(Call& call) {
  Value* info = nullptr;
  Value* result = inverse(call, "A", &info);
  return {result, info};
}

// The solution of A x = B, or x A = B unless `left`. B may be one vector per matrix.
Value* solution(Call& call, Value** info) {
  Value *a = wide_matrix(call, "A"), *b = call.builder().cast(call.tensor("B"), DType::F64);
  const bool left = call.boolean_or("left", true);
  const bool is_vector = rank_of(b) == 1 || (rank_of(b) == rank_of(a) - 1 &&
                                             ir::Shape(a->type.shape.begin(),
                                                       a->type.shape.end() - 1) == b->type.shape);
  if (is_vector) b = unsqueeze(call, b, rank_of(b));
  if (!left) {
    a = transposed(call, a);
    b = transposed(call, b);
  }
  ir::Shape shape = ir::broadcast_shapes(ir::Shape(a->type.shape.begin(), a->type.shape.end() - 2),
                                         ir::Shape(b->type.shape.begin(), b->type.shape.end() - 2));
  ir::Shape of_a = shape, of_b = shape;
  of_a.insert(of_a.end(), a->type.shape.end() - 2, a->type.shape.end());
  of_b.insert(of_b.end(), b->type.shape.end() - 2, b->type.shape.end());
  const Elimination result =
      eliminate(call, call.builder().expand(a, of_a), call.builder().expand(b, of_b));
  if (info == nullptr || call.boolean_or("check_errors", false)) check_pivots(call, result);
  if (info != nullptr) *info = first_failure(call, Expr(call, result.pivots).apply(Op::eq, 0));
  Value* x = left ? result.right : transposed(call, result.right);
  if (is_vector)
    x = call.builder().reshape(x, ir::Shape(x->type.shape.begin(), x->type.shape.end() - 1));
  return call.builder().cast(x, dtype_of(call, "A"));
}

Value* import_solve(Call& call) { return solution(call, nullptr); }
std::vector<Value*> import_solve_ex(Call& call) {
  Value* info = nullptr;
  Value* result = solution(call, &info);
  if (call.node().output_names().size() == 2) return {result, info};
  call.expect(!call.output_used(1) && !call.output_used(2), "a use of the factors",
              "the solution only");
  return {result, nullptr, nullptr, info};
}

struct Determinant {
  Expr sign, pivots;
};

Determinant determinant(Call& call) {
  Value* a = wide_matrix(call, matrix_name(call));
  const Elimination result = eliminate(call, a, slice(call, a, rank_of(a) - 1, 0, 0));
  const Expr odd(call, result.is_odd), pivots(call, result.pivots);
  return {odd.select(pivots.constant(-1), pivots.constant(1)), pivots};
}

Value* import_det(Call& call) {
  const Determinant found = determinant(call);
  const Expr product(
      call, reduce(call, Op::reduce_prod, found.pivots, {rank_of(found.pivots) - 1}, false));
  return call.builder().cast(found.sign * product, dtype_of(call, matrix_name(call)));
}

std::vector<Value*> slogdet(Call& call) {
  const Determinant found = determinant(call);
  const std::vector<int64_t> axis{rank_of(found.pivots) - 1};
  const Expr signs(call, reduce(call, Op::reduce_prod, found.pivots.apply(Op::sign), axis, false));
  Value* logarithm =
      reduce(call, Op::reduce_sum, found.pivots.apply(Op::abs).apply(Op::log), axis, false);
  return {found.sign * signs, logarithm};
}

std::vector<Value*> import_slogdet(Call& call) {
  std::vector<Value*> result = slogdet(call);
  for (Value*& x : result) x = call.builder().cast(x, dtype_of(call, matrix_name(call)));
  result.resize(call.node().output_names().size(), nullptr);
  return result;
}

// NaN of a negative determinant.
Value* import_logdet(Call& call) {
  const std::vector<Value*> found = slogdet(call);
  const Expr sign(call, found[0]), logarithm(call, found[1]);
  const double nan = std::numeric_limits<double>::quiet_NaN();
  const Expr result = sign.apply(Op::eq, -1).select(sign.constant(nan), logarithm);
  return call.builder().cast(result, dtype_of(call, matrix_name(call)));
}

struct Cholesky {
  Value* lower;
  Value* squares;  // [.., n]: of the diagonal; positive where the matrix has a factor
};

// Of the lower triangle.
Cholesky cholesky(Call& call, Value* a) {
  const int64_t n = rows_of(call, a), axis = rank_of(a) - 2;
  ir::Shape diagonal(a->type.shape.begin(), a->type.shape.end() - 1);
  if (n == 0) return {a, call.builder().reshape(a, diagonal)};
  std::vector<Value*> columns, squares;
  for (int64_t j = 0; j < n; ++j) {
    Value* here = column(call, a, j);
    const Expr square(call, slice(call, here, axis, j, 1));
    const Expr numbers = row_numbers(call, n), scaled = Expr(call, here) / square.apply(Op::sqrt);
    const Expr factor =
        numbers.apply(Op::ge, static_cast<double>(j)).select(scaled, scaled.constant(0));
    columns.push_back(factor);
    squares.push_back(square);
    a = Expr(call, a) - factor * Expr(call, transposed(call, factor));
  }
  const auto join = [&](const std::vector<Value*>& parts) {
    return parts.size() == 1 ? parts[0] : call.make(Op::concat, parts, {{"axis", axis + 1}});
  };
  return {join(columns), call.builder().reshape(join(squares), diagonal)};
}

Expr is_not_positive(Call& call, const Cholesky& factor) {
  return Expr(call, factor.squares).apply(Op::gt, 0).apply(Op::logical_not);
}

Value* cholesky_of(Call& call, Value** info) {
  Value* a = wide_matrix(call, "self");
  const bool upper = call.boolean_or("upper", false);
  const Cholesky factor = cholesky(call, upper ? transposed(call, a) : a);
  if (info == nullptr || call.boolean_or("check_errors", false))
    check_all(call, is_not_positive(call, factor).apply(Op::logical_not));
  if (info != nullptr) *info = first_failure(call, is_not_positive(call, factor));
  Value* result = upper ? transposed(call, factor.lower) : factor.lower;
  return call.builder().cast(result, dtype_of(call, "self"));
}

Value* import_cholesky(Call& call) { return cholesky_of(call, nullptr); }
std::vector<Value*> import_cholesky_ex(Call& call) {
  Value* info = nullptr;
  Value* result = cholesky_of(call, &info);
  return {result, info};
}

// a x = b, for a triangle of a alone.
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

// Both with the leading axes that they broadcast to.
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

Value* import_solve_triangular(Call& call) {
  Value *a = wide_matrix(call, "self"), *b = wide_matrix(call, "B");
  broadcast_matrices(call, a, b);
  const bool left = call.boolean_or("left", true);
  bool upper = call.boolean_or("upper", false);
  if (!left) {
    a = transposed(call, a);
    b = transposed(call, b);
    upper = !upper;
  }
  Value* x = substitute(call, a, b, upper, call.boolean_or("unitriangular", false));
  return call.builder().cast(left ? x : transposed(call, x), dtype_of(call, "self"));
}

std::vector<Value*> import_triangular_solve(Call& call) {
  Value *a = wide_matrix(call, "A"), *b = wide_matrix(call, "self");
  broadcast_matrices(call, a, b);
  Value* coefficients = call.builder().expand(call.tensor("A"), a->type.shape);
  const bool transposes = call.boolean_or("transpose", false);
  if (transposes) a = transposed(call, a);
  const bool upper = call.boolean_or("upper", true) != transposes;
  Value* x = substitute(call, a, b, upper, call.boolean_or("unitriangular", false));
  return {call.builder().cast(x, dtype_of(call, "self")), coefficients};
}

// The solution for a matrix whose Cholesky factor is given.
Value* solve_by_factor(Call& call, Value* factor, Value* b, bool upper) {
  broadcast_matrices(call, factor, b);
  Value* lower = upper ? transposed(call, factor) : factor;
  Value* half = substitute(call, lower, b, false, false);
  return substitute(call, transposed(call, lower), half, true, false);
}

Value* import_cholesky_solve(Call& call) {
  Value* x = solve_by_factor(call, wide_matrix(call, "input2"), wide_matrix(call, "self"),
                             call.boolean_or("upper", false));
  return call.builder().cast(x, dtype_of(call, "self"));
}

Value* import_cholesky_inverse(Call& call) {
  Value* factor = wide_matrix(call, "self");
  Value* x =
      solve_by_factor(call, factor, identity_like(call, factor), call.boolean_or("upper", false));
  return call.builder().cast(x, dtype_of(call, "self"));
}

// By squares.
Value* import_matrix_power(Call& call) {
  Value* a = wide_matrix(call, "self");
  int64_t n = call.integer("n");
  constexpr int64_t kMost = 1024;
  call.expect(n >= -kMost && n <= kMost, "the power " + std::to_string(n),
              "at most " + std::to_string(kMost));
  if (n < 0) {
    const Elimination result = eliminate(call, a, identity_like(call, a));
    check_pivots(call, result);
    a = result.right;
    n = -n;
  }
  Value* product = nullptr;
  const auto multiply = [&](Value* x, Value* y) {
    return call.make(Op::matmul, {x, y}, {{"transpose_b", false}});
  };
  for (; n > 0; n /= 2) {
    if (n % 2 == 1) product = product == nullptr ? a : multiply(product, a);
    if (n > 1) a = multiply(a, a);
  }
  if (product == nullptr) product = identity_like(call, a);
  return call.builder().cast(product, dtype_of(call, "self"));
}

constexpr Row kRows[] = {
    {"aten.linalg_inv.default", import_inverse},
    {"aten.inverse.default", import_inverse},
    {"aten.linalg_inv_ex.default", import_inverse_ex},
    {"aten.linalg_solve.default", import_solve},
    {"aten.linalg_solve_ex.default", import_solve_ex},
    {"aten._linalg_solve_ex.default", import_solve_ex},
    {"aten.linalg_det.default", import_det},
    {"aten.det.default", import_det},
    {"aten.linalg_slogdet.default", import_slogdet},
    {"aten.slogdet.default", import_slogdet},
    {"aten._linalg_slogdet.default", import_slogdet},
    {"aten.logdet.default", import_logdet},
    {"aten.linalg_cholesky.default", import_cholesky},
    {"aten.cholesky.default", import_cholesky},
    {"aten.linalg_cholesky_ex.default", import_cholesky_ex},
    {"aten.linalg_solve_triangular.default", import_solve_triangular},
    {"aten.triangular_solve.default", import_triangular_solve},
    {"aten.cholesky_solve.default", import_cholesky_solve},
    {"aten.cholesky_inverse.default", import_cholesky_inverse},
    {"aten.linalg_matrix_power.default", import_matrix_power},
    {"aten.matrix_power.default", import_matrix_power},
};

}  // namespace

Rows linalg_rows() { return kRows; }

}  // namespace kiln::import
