// Inverses, determinants and solutions of systems of equations with small matrices, and Cholesky's factors.
#include <algorithm>
#include <limits>

#include "import/ops/linalg.h"

namespace kiln::import {
namespace {

void check_pivots(Call& call, const Elimination& result) {
  require_data(call, Expr(call, result.pivots).apply(Op::ne, 0),
               "got a singular matrix, expected one that has an inverse");
}

// What an elimination gives. A matrix without an inverse ends the run, or, where `info` tells of it, gives NaN.
Value* solved(Call& call, const Elimination& result, Value** info) {
  if (info == nullptr || call.boolean_or("check_errors", false)) check_pivots(call, result);
  if (info == nullptr) return result.right;
  *info = first_failure(call, Expr(call, result.pivots).apply(Op::eq, 0));
  const Expr failed = for_matrices(call, Expr(call, *info).apply(Op::ne, 0), 2);
  const Expr right(call, result.right);
  return failed.select(right.constant(std::numeric_limits<double>::quiet_NaN()), right);
}

Value* inverse(Call& call, std::string_view name, Value** info) {
  Value* a = wide_matrix(call, name);
  const Elimination result = eliminate(call, a, identity_like(call, a));
  return call.builder().cast(solved(call, result, info), dtype_of(call, name));
}

const char* matrix_name(Call& call) { return call.has("A") ? "A" : "self"; }

Value* import_inverse(Call& call) { return inverse(call, matrix_name(call), nullptr); }
std::vector<Value*> import_inverse_ex(Call& call) {
  Value* info = nullptr;
  Value* result = inverse(call, "A", &info);
  return {result, info};
}

// The inverse of a tensor that is a square matrix if its first `ind` axes are made one, and the others.
Value* import_tensor_inverse(Call& call) {
  Value* x = call.tensor("self");
  const int64_t first = call.integer_or("ind", 2);
  call.expect(first > 0 && first < rank_of(x) && is_floating(x->type.dtype), x->type.str(),
              "floats, with axes behind the first " + std::to_string(first));
  const auto middle = x->type.shape.begin() + first;
  const ir::Shape front(x->type.shape.begin(), middle), rest(middle, x->type.shape.end());
  Value* matrix = call.builder().reshape(x, {ir::product(front), ir::product(rest)});
  matrix = call.builder().cast(matrix, DType::F64);
  const Elimination result = eliminate(call, matrix, identity_like(call, matrix));
  check_pivots(call, result);
  ir::Shape shape = rest;
  shape.insert(shape.end(), front.begin(), front.end());
  return call.builder().cast(call.builder().reshape(result.right, shape), x->type.dtype);
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
  broadcast_matrices(call, a, b);
  const Elimination result = eliminate(call, a, b);
  Value* x = solved(call, result, info);
  if (!left) x = transposed(call, x);
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
  const Expr one = found.pivots.constant(1), zero = found.pivots.constant(0);
  const Expr positive = found.pivots.apply(Op::gt, 0), negative = found.pivots.apply(Op::lt, 0);
  const Expr sign = positive.select(one, negative.select(-one, zero));  // NaN has none
  const Expr signs(call, reduce(call, Op::reduce_prod, sign, axis, false));
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
  return {joined(call, columns, axis + 1),
          call.builder().reshape(joined(call, squares, axis + 1), diagonal)};
}

Expr is_positive(Call& call, const Cholesky& factor) {
  return Expr(call, factor.squares).apply(Op::gt, 0);
}

// What LAPACK leaves where the square of column `info` (from 1) is not positive: columns in front of it are the factor's, on the
// diagonal is that square, and the others are still the matrix's.
Value* begun_factor(Call& call, Value* a, const Cholesky& factor, Value* info) {
  const int64_t n = rows_of(call, a);
  if (n == 0) return factor.lower;
  const Expr columns(call, iota(call, ir::Dim(n)));
  const Expr failed = for_matrices(call, call.builder().cast(info, DType::I64), 2);
  const Expr place = columns - row_numbers(call, n), behind = columns + 1 - failed;
  const Expr squares(call, unsqueeze(call, factor.squares, rank_of(a) - 2));
  const Expr at_pivot = place.apply(Op::eq, 0) * behind.apply(Op::eq, 0);
  const Expr left = at_pivot.select(squares, {call, a});
  const Expr is_left = failed.apply(Op::ne, 0) * behind.apply(Op::ge, 0) * place.apply(Op::le, 0);
  return is_left.select(left, {call, factor.lower});
}

Value* cholesky_of(Call& call, Value** info) {
  Value* a = wide_matrix(call, "self");
  const bool upper = call.boolean_or("upper", false);
  if (upper) a = transposed(call, a);
  const Cholesky factor = cholesky(call, a);
  const Expr positive = is_positive(call, factor);
  if (info == nullptr || call.boolean_or("check_errors", false))
    require_data(call, positive,
                 "got a matrix that is not positive-definite, expected one that has a factor");
  Value* result = factor.lower;
  if (info != nullptr) {
    *info = first_failure(call, positive.apply(Op::logical_not));
    result = begun_factor(call, a, factor, *info);
  }
  if (upper) result = transposed(call, result);
  return call.builder().cast(result, dtype_of(call, "self"));
}

Value* import_cholesky(Call& call) { return cholesky_of(call, nullptr); }
std::vector<Value*> import_cholesky_ex(Call& call) {
  Value* info = nullptr;
  Value* result = cholesky_of(call, &info);
  return {result, info};
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
    {"aten.linalg_tensorinv.default", import_tensor_inverse},
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
