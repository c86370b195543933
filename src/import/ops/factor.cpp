// Factors of small matrices: triangles by elimination (LU) and orthogonal ones by reflections (QR), with LAPACK's signs.
#include <string>

#include "import/ops/linalg.h"

namespace kiln::import {
namespace {

Expr column_numbers(Call& call, int64_t n) { return {call, iota(call, ir::Dim(n))}; }

// The part of x on and below the diagonal, or on and above it, shifted by `offset`.
Value* triangle(Call& call, Value* x, Op keep, double offset) {
  const Sides sides = sides_of(call, x);
  const Expr place = column_numbers(call, sides.columns) - row_numbers(call, sides.rows);
  return place.apply(keep, offset).select({call, x}, {call, call.constant_like(x, 0)});
}

// --- LU ---

struct Triangles {
  Value* packed;   // U, and below its diagonal L without its ones
  Value* pivots;   // i32 [.., steps]: which row each was swapped with, from 1
  Value* order;    // i64 [.., rows]: the row of the matrix that each row of L U is
  Value* is_zero;  // bool [.., steps]: pivots that nothing can be divided by
};

Value* swapped_order(Call& call, Value* order, int64_t j, const Expr& other) {
  const int64_t last = rank_of(order) - 1;
  const Expr place = column_numbers(call, order->type.shape.back().constant());
  const Expr here(call, slice(call, order, last, j, 1));
  const Expr there(call, call.make(Op::gather_elements, {order, other}, {{"axis", last}}));
  const Expr is_here = place.apply(Op::eq, static_cast<double>(j)),
             is_there = place.apply(Op::eq, other);
  return is_here.select(there, is_there.select(here, {call, order}));
}

Value* rows_in_order(Call& call, Value* x, Value* order) {
  const int64_t axis = rank_of(x) - 2;
  Value* index = call.builder().expand(unsqueeze(call, order, rank_of(order)), x->type.shape);
  return call.make(Op::gather_elements, {x, index}, {{"axis", axis}});
}

Triangles triangles(Call& call, Value* a) {
  const Sides sides = sides_of(call, a);
  const int64_t axis = rank_of(a) - 2;
  const ir::Shape front = leading(a);
  Value* order = call.builder().expand(iota(call, ir::Dim(sides.rows)), with(front, {sides.rows}));
  std::vector<Value*> pivots, zeros;
  const Expr rows = row_numbers(call, sides.rows), columns = column_numbers(call, sides.columns);
  for (int64_t j = 0; j < sides.steps; ++j) {
    Value* below = slice(call, column(call, a, j), axis, j, sides.rows - j);
    const Expr largest(call, call.make(Op::argmax, {Expr(call, below).apply(Op::abs)},
                                       {{"axis", axis}, {"keepdim", true}}));
    const Expr found(call,
                     call.builder().reshape(largest + static_cast<double>(j), with(front, {1})));
    const Expr swap(call, swapped_order(call,
                                        call.builder().expand(iota(call, ir::Dim(sides.rows)),
                                                              with(front, {sides.rows})),
                                        j, found));
    a = rows_in_order(call, a, swap);
    order = call.make(Op::gather_elements, {order, swap}, {{"axis", axis}});
    pivots.push_back(found + 1);
    const Expr first(call, row(call, a, j)), pivot(call, column(call, first, j));
    const Expr is_zero = pivot.apply(Op::eq, 0);
    zeros.push_back(call.builder().reshape(is_zero, with(front, {1})));
    const Expr factor = Expr(call, column(call, a, j)) / is_zero.select(pivot.constant(1), pivot);
    const double step = static_cast<double>(j);
    const Expr reduced =
        columns.apply(Op::gt, step).select(Expr(call, a) - factor * first, {call, a});
    const Expr next = columns.apply(Op::eq, step).select(factor, reduced);
    a = rows.apply(Op::gt, step).select(next, {call, a});
  }
  if (sides.steps == 0)
    return {a, filled(call, DType::I32, with(front, {0}), 0), order,
            filled(call, DType::Bool, with(front, {0}), 0)};
  return {a, call.builder().cast(joined(call, pivots, axis), DType::I32), order,
          joined(call, zeros, axis)};
}

void expect_pivots(Call& call) {
  call.expect(call.boolean_or("pivot", true), "pivot = False", "True, as on any CPU");
}

const char* matrix_name(Call& call) { return call.has("A") ? "A" : "self"; }

std::vector<Value*> factor_with_info(Call& call, bool checks) {
  expect_pivots(call);
  const char* name = matrix_name(call);
  const Triangles found = triangles(call, wide_matrix(call, name));
  if (checks)
    require_data(call, Expr(call, found.is_zero).apply(Op::logical_not),
                 "got a singular matrix, expected one whose factors solve equations");
  return {call.builder().cast(found.packed, dtype_of(call, name)), found.pivots,
          first_failure(call, {call, found.is_zero})};
}

std::vector<Value*> import_lu_factor_ex(Call& call) {
  return factor_with_info(call, call.boolean_or("check_errors", false));
}
std::vector<Value*> import_lu_with_info(Call& call) {
  return factor_with_info(call, call.boolean_or("check_errors", true));
}
std::vector<Value*> import_lu_factor(Call& call) {
  std::vector<Value*> results = factor_with_info(call, true);
  results.pop_back();
  return results;
}

// P, L and U of what is packed.
std::vector<Value*> unpacked(Call& call, Value* packed, Value* order) {
  const Sides sides = sides_of(call, packed);
  const int64_t axis = rank_of(packed) - 2;
  const DType dtype = packed->type.dtype;
  const Expr rows = row_numbers(call, sides.rows);
  const Expr from(call, unsqueeze(call, order, rank_of(order) - 1));
  Value* permutation = call.builder().cast(rows.apply(Op::eq, from), dtype);
  Value* left = slice(call, packed, axis + 1, 0, sides.steps);
  Value* right = slice(call, packed, axis, 0, sides.steps);
  const Expr is_diagonal = rows.apply(Op::eq, column_numbers(call, sides.steps));
  const Expr lower(call, triangle(call, left, Op::lt, 0));
  return {permutation, is_diagonal.select(lower.constant(1), lower),
          triangle(call, right, Op::ge, 0)};
}

std::vector<Value*> import_lu(Call& call) {
  expect_pivots(call);
  const char* name = matrix_name(call);
  const Triangles found = triangles(call, wide_matrix(call, name));
  return unpacked(call, call.builder().cast(found.packed, dtype_of(call, name)), found.order);
}

// The order that swaps, i32 [.., steps] from 1, leave the rows in.
Value* order_of(Call& call, Value* pivots, int64_t rows) {
  ir::Shape shape = pivots->type.shape;
  const int64_t last = rank_of(pivots) - 1, steps = shape.back().constant();
  shape.back() = rows;
  Value* order = call.builder().expand(iota(call, ir::Dim(rows)), shape);
  // Rows below the first have not moved yet: a row to swap with lies from `j` on.
  Value* checked = checked_index(call, Expr(call, pivots) - 1, ir::Dim(rows), false, "lu_unpack");
  for (int64_t j = 0; j < steps; ++j)
    order = swapped_order(call, order, j, {call, slice(call, checked, last, j, 1)});
  return order;
}

std::vector<Value*> import_lu_unpack(Call& call) {
  Value* packed = call.tensor("LU_data");
  call.expect(is_floating(packed->type.dtype), packed->type.str(), "matrices of floats");
  Value* order = order_of(call, call.tensor("LU_pivots"), sides_of(call, packed).rows);
  std::vector<Value*> results = unpacked(call, packed, order);
  if (!call.boolean_or("unpack_pivots", true)) results[0] = nothing(call, packed->type.dtype);
  if (!call.boolean_or("unpack_data", true))
    results[1] = results[2] = nothing(call, packed->type.dtype);
  return results;
}

// A x = B of A = P L U: L U x is B in the order of the rows. Of the transpose of A, the other way around.
Value* solve_by_triangles(Call& call, Value* packed, Value* order, Value* b, bool of_transpose) {
  broadcast_matrices(call, packed, b);
  ir::Shape shape = leading(packed);
  shape.push_back(order->type.shape.back());
  order = call.builder().expand(order, shape);
  if (!of_transpose) {
    Value* half = substitute(call, packed, rows_in_order(call, b, order), false, true);
    return substitute(call, packed, half, true, false);
  }
  Value* turned = transposed(call, packed);
  Value* half = substitute(call, turned, b, false, false);
  Value* rows = substitute(call, turned, half, true, true);
  Value* back = call.make(
      Op::argsort, {order},
      {{"axis", rank_of(order) - 1}, {"descending", false}, {"count", order->type.shape.back()}});
  return rows_in_order(call, rows, back);
}

Value* solution(Call& call, const char* packed_name, const char* pivots_name, const char* b_name) {
  Value *packed = wide_matrix(call, packed_name), *b = wide_matrix(call, b_name);
  const bool left = call.boolean_or("left", true), adjoint = call.boolean_or("adjoint", false);
  Value* order = order_of(call, call.tensor(pivots_name), rows_of(call, packed));
  if (!left) b = transposed(call, b);
  Value* x = solve_by_triangles(call, packed, order, b, adjoint == left);
  return call.builder().cast(left ? x : transposed(call, x), dtype_of(call, b_name));
}

Value* import_linalg_lu_solve(Call& call) { return solution(call, "LU", "pivots", "B"); }
Value* import_lu_solve(Call& call) { return solution(call, "LU_data", "LU_pivots", "self"); }

// --- QR ---

// x less tau v (v^T x): a reflection, for v of the length that tau says.
Value* reflect(Call& call, Value* x, const Expr& v, const Expr& tau) {
  const int64_t axis = rank_of(x) - 2;
  const Expr product(call, reduce(call, Op::reduce_sum, v * Expr(call, x), {axis}, true));
  return Expr(call, x) - tau * v * product;
}

struct Reflections {
  std::vector<Expr> vectors, factors;  // [.., rows, 1] and [.., 1, 1]
  Value* upper;                        // what is left of the matrix
};

// LAPACK's: each takes a column to the negative of its first element's sign, and is none where nothing lies below.
Reflections reflections(Call& call, Value* a) {
  const Sides sides = sides_of(call, a);
  const int64_t axis = rank_of(a) - 2;
  Reflections result;
  const Expr rows = row_numbers(call, sides.rows), columns = column_numbers(call, sides.columns);
  for (int64_t j = 0; j < sides.steps; ++j) {
    const double step = static_cast<double>(j);
    const Expr here(call, column(call, a, j)), first(call, slice(call, here, axis, j, 1));
    const Expr is_below = rows.apply(Op::gt, step), is_here = rows.apply(Op::eq, step);
    const Expr tail = is_below.select(here, here.constant(0));
    const Expr largest(call, reduce(call, Op::reduce_max, tail.apply(Op::abs), {axis}, true));
    const Expr is_none = largest.apply(Op::eq, 0);
    const Expr scaled = tail / is_none.select(largest.constant(1), largest);
    const Expr square(call, reduce(call, Op::reduce_sum, scaled * scaled, {axis}, true));
    const Expr size = first.apply(Op::hypot, largest * square.apply(Op::sqrt));
    const Expr beta = first.apply(Op::lt, 0).select(size, -size);
    const Expr divisor = is_none.select(first.constant(1), first - beta);
    const Expr v = is_here.select(tail.constant(1), tail / divisor);
    const Expr tau =
        is_none.select(first.constant(0), (beta - first) / is_none.select(beta.constant(1), beta));
    const Expr reflected(call, reflect(call, a, v, tau));
    const Expr diagonal = is_none.select(first, beta);
    const Expr of_column = is_below.select(here.constant(0), is_here.select(diagonal, here));
    a = columns.apply(Op::eq, step)
            .select(of_column, columns.apply(Op::lt, step).select({call, a}, reflected));
    result.vectors.push_back(v);
    result.factors.push_back(tau);
  }
  result.upper = a;
  return result;
}

// The product of the reflections, or of their transposes in the other order, times x.
Value* multiply(Call& call, const Reflections& given, Value* x, bool transposes) {
  const size_t count = given.vectors.size();
  for (size_t i = 0; i < count; ++i) {
    const size_t at = transposes ? i : count - 1 - i;
    x = reflect(call, x, given.vectors[at], given.factors[at]);
  }
  return x;
}

std::vector<Value*> factors_of(Call& call, const std::string& mode) {
  const char* name = matrix_name(call);
  Value* a = wide_matrix(call, name);
  const DType dtype = dtype_of(call, name);
  const Sides sides = sides_of(call, a);
  const Reflections found = reflections(call, a);
  const bool is_complete = mode == "complete";
  call.expect(is_complete || mode == "reduced" || mode == "r", "mode = \"" + mode + "\"",
              "reduced, complete or r");
  const int64_t kept = is_complete ? sides.rows : sides.steps;
  Value* upper = slice(call, found.upper, rank_of(a) - 2, 0, kept);
  Value* q = mode == "r"
                 ? nothing(call, dtype)
                 : multiply(call, found, rectangle(call, leading(a), sides.rows, kept), false);
  return {call.builder().cast(q, dtype), call.builder().cast(upper, dtype)};
}

std::vector<Value*> import_linalg_qr(Call& call) {
  return factors_of(call, call.text_or("mode", "reduced"));
}
std::vector<Value*> import_qr(Call& call) {
  return factors_of(call, call.boolean_or("some", true) ? "reduced" : "complete");
}

std::vector<Value*> import_geqrf(Call& call) {
  Value* a = wide_matrix(call, "self");
  const DType dtype = dtype_of(call, "self");
  const int64_t axis = rank_of(a) - 2;
  const Sides sides = sides_of(call, a);
  const Reflections found = reflections(call, a);
  if (sides.steps == 0) return {call.tensor("self"), filled(call, dtype, with(leading(a), {0}), 0)};
  Expr packed(call, found.upper);
  std::vector<Value*> factors;
  const Expr place = column_numbers(call, sides.columns) - row_numbers(call, sides.rows);
  for (int64_t j = 0; j < sides.steps; ++j) {
    const Expr is_column =
        column_numbers(call, sides.columns).apply(Op::eq, static_cast<double>(j));
    packed = (is_column * place.apply(Op::lt, 0)).select(found.vectors[j], packed);
    factors.push_back(call.builder().reshape(found.factors[j], with(leading(a), {1})));
  }
  return {call.builder().cast(packed, dtype),
          call.builder().cast(joined(call, factors, axis), dtype)};
}

// Those that geqrf packs: the parts of columns below the diagonal, and factors.
Reflections unpacked_reflections(Call& call, Value* packed, Value* factors) {
  const Sides sides = sides_of(call, packed);
  const ir::Dim count = factors->type.shape.back();
  call.expect(count.is_constant() && count.constant() <= sides.columns,
              "factors of " + factors->type.str(), "one for each column, or fewer");
  Reflections result{{}, {}, packed};
  const Expr rows = row_numbers(call, sides.rows);
  for (int64_t j = 0; j < count.constant(); ++j) {
    const double step = static_cast<double>(j);
    const Expr here(call, column(call, packed, j));
    const Expr below = rows.apply(Op::gt, step).select(here, here.constant(0));
    result.vectors.push_back(rows.apply(Op::eq, step).select(here.constant(1), below));
    Value* factor = slice(call, factors, rank_of(factors) - 1, j, 1);
    result.factors.emplace_back(call, unsqueeze(call, factor, rank_of(factor)));
  }
  return result;
}

Value* import_householder_product(Call& call) {
  const char* name = call.has("input") ? "input" : "self";
  const char* factors = call.has("tau") ? "tau" : "input2";
  Value* packed = wide_matrix(call, name);
  const Sides sides = sides_of(call, packed);
  const Reflections given =
      unpacked_reflections(call, packed, call.builder().cast(call.tensor(factors), DType::F64));
  Value* q =
      multiply(call, given, rectangle(call, leading(packed), sides.rows, sides.columns), false);
  return call.builder().cast(q, dtype_of(call, name));
}

// Q x, Q^T x, x Q or x Q^T of the Q that reflections make.
Value* import_ormqr(Call& call) {
  Value *packed = wide_matrix(call, "self"), *x = wide_matrix(call, "input3");
  const bool left = call.boolean_or("left", true);
  const Reflections given =
      unpacked_reflections(call, packed, call.builder().cast(call.tensor("input2"), DType::F64));
  if (!left) x = transposed(call, x);
  x = multiply(call, given, x, call.boolean_or("transpose", false) == left);
  return call.builder().cast(left ? x : transposed(call, x), dtype_of(call, "self"));
}

constexpr Row kRows[] = {
    {"aten.linalg_lu_factor.default", import_lu_factor},
    {"aten.linalg_lu_factor_ex.default", import_lu_factor_ex},
    {"aten._lu_with_info.default", import_lu_with_info},
    {"aten.linalg_lu.default", import_lu},
    {"aten.lu_unpack.default", import_lu_unpack},
    {"aten.linalg_lu_solve.default", import_linalg_lu_solve},
    {"aten.lu_solve.default", import_lu_solve},
    {"aten.linalg_qr.default", import_linalg_qr},
    {"aten.qr.default", import_qr},
    {"aten.geqrf.default", import_geqrf},
    {"aten.linalg_householder_product.default", import_householder_product},
    {"aten.orgqr.default", import_householder_product},
    {"aten.ormqr.default", import_ormqr},
};

}  // namespace

// The reflections of such columns take them to the diagonal, but for signs; where a column is zero there is none, and the
// product has another column in its place.
Value* orthonormal_columns(Call& call, Value* x, int64_t count) {
  const Sides sides = sides_of(call, x);
  const int64_t axis = rank_of(x) - 2;
  const Reflections found = reflections(call, x);
  Value* q = multiply(call, found, rectangle(call, leading(x), sides.rows, count), false);
  const Expr is_diagonal =
      row_numbers(call, sides.rows).apply(Op::eq, column_numbers(call, sides.columns));
  const Expr upper(call, found.upper);
  const Expr diagonal(call, reduce(call, Op::reduce_sum,
                                   is_diagonal.select(upper, upper.constant(0)), {axis}, true));
  std::vector<ir::Dim> before(x->type.rank(), 0), after(x->type.rank(), 0);
  after.back() = count - sides.columns;
  const Expr sign(call, pad_constant(call, diagonal, before, after));
  return sign.apply(Op::lt, 0).select(-Expr(call, q), {call, q});
}

Rows factor_rows() { return kRows; }

}  // namespace kiln::import
