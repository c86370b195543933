// Singular values and eigenvalues of small matrices with their vectors, and what follows from them. The signs of vectors are not
// LAPACK's, which are whatever its steps lead to, but they are the same in every run.
#include <algorithm>
#include <cmath>
#include <limits>
#include <string>

#include "import/ops/jacobi.h"
#include "import/repeat.h"

namespace kiln::import {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();

// PyTorch raises for matrices with NaN; of infinities it makes NaN.
void require_numbers(Call& call, Value* a) {
  require_data(call, Expr(call, a).apply(Op::isnan).apply(Op::logical_not),
               "got a matrix with NaN, for which there are no singular values or eigenvalues, "
               "expected numbers");
}

// With the longer side as rows.
struct Tall {
  Value* matrix;
  bool is_transposed;
  int64_t count;  // of singular values
};

Tall tall_matrix(Call& call, Value* a) {
  const Sides sides = sides_of(call, a);
  const bool is_wide = sides.rows < sides.columns;
  return {is_wide ? transposed(call, a) : a, is_wide, sides.steps};
}

// Numbers of columns, [.., count], in the order of [.., 1, n].
Value* order_of_columns(Call& call, const Expr& keys, bool descending, int64_t count) {
  ir::Shape shape = keys.value()->type.shape;
  shape.erase(shape.end() - 2);
  return call.make(Op::argsort, {call.builder().reshape(keys, shape)},
                   {{"axis", static_cast<int64_t>(shape.size()) - 1},
                    {"descending", descending},
                    {"count", ir::Dim(count)}});
}

Value* columns_in_order(Call& call, Value* x, Value* order) {
  const int64_t last = rank_of(order) - 1;
  ir::Shape shape = x->type.shape;
  shape.back() = order->type.shape.back();
  Value* index = call.builder().expand(unsqueeze(call, order, last), shape);
  return call.make(Op::gather_elements, {x, index}, {{"axis", last + 1}});
}

Value* without_rows(Call& call, Value* x) {
  ir::Shape shape = x->type.shape;
  shape.erase(shape.end() - 2);
  return call.builder().reshape(x, shape);
}

// [.., count], the largest first.
Value* singular_values(Call& call, Value* a) {
  const Tall tall = tall_matrix(call, a);
  if (tall.count == 0) return filled(call, DType::F64, with(leading(a), {0}), 0);
  require_numbers(call, a);
  const Expr lengths = singular(call, tall.matrix, false).lengths;
  Value* order = order_of_columns(call, lengths, true, tall.count);
  return without_rows(call, columns_in_order(call, lengths, order));
}

const char* matrix_name(Call& call) {
  return call.has("A") ? "A" : call.has("input") ? "input" : "self";
}

Value* import_svdvals(Call& call) {
  const char* name = matrix_name(call);
  return call.builder().cast(singular_values(call, wide_matrix(call, name)), dtype_of(call, name));
}

// A = left diag(values) right^T, with the columns of both at right angles, as many as there are rows if `all`.
struct Decomposition {
  Value *left, *values, *right;
};

Decomposition decompose(Call& call, Value* a, bool all) {
  const Sides sides = sides_of(call, a);
  const Tall tall = tall_matrix(call, a);
  const ir::Shape front = leading(a);
  if (tall.count == 0)
    return {rectangle(call, front, sides.rows, all ? sides.rows : 0),
            filled(call, DType::F64, with(front, {0}), 0),
            rectangle(call, front, sides.columns, all ? sides.columns : 0)};
  require_numbers(call, a);
  const Singular found = singular(call, tall.matrix, true);
  const Expr lengths = found.lengths;
  const Expr keys = has_direction(call, found).select(lengths, lengths.constant(-1));
  Value* order = order_of_columns(call, keys, true, tall.count);
  const Expr values(call, columns_in_order(call, lengths, order));
  const Expr columns(call, columns_in_order(call, found.columns, order));
  const Expr unit = columns / values.apply(Op::eq, 0).select(values.constant(1), values);
  Value* longer =
      orthonormal_columns(call, unit, all ? std::max(sides.rows, sides.columns) : tall.count);
  Value* shorter = columns_in_order(call, found.turns, order);
  return {tall.is_transposed ? shorter : longer, without_rows(call, values),
          tall.is_transposed ? longer : shorter};
}

// U, S, and V or its transpose. Without vectors these are empty, or as torch.svd has them: zeros.
std::vector<Value*> svd(Call& call, bool all, bool has_vectors, bool transposes) {
  const char* name = matrix_name(call);
  Value* a = wide_matrix(call, name);
  const DType dtype = dtype_of(call, name);
  if (!has_vectors || (!call.output_used(0) && !call.output_used(2))) {
    Value* values = call.builder().cast(singular_values(call, a), dtype);
    const Sides sides = sides_of(call, a);
    const auto zeros = [&](int64_t n) {
      return transposes ? nothing(call, dtype) : filled(call, dtype, with(leading(a), {n, n}), 0);
    };
    if (has_vectors) return {nullptr, values, nullptr};
    return {zeros(sides.rows), values, zeros(sides.columns)};
  }
  const Decomposition found = decompose(call, a, all);
  Value* right = transposes ? transposed(call, found.right) : found.right;
  return {call.builder().cast(found.left, dtype), call.builder().cast(found.values, dtype),
          call.builder().cast(right, dtype)};
}

std::vector<Value*> import_linalg_svd(Call& call) {
  return svd(call, call.boolean_or("full_matrices", !call.node().target.starts_with("aten._")),
             call.boolean_or("compute_uv", true), true);
}
std::vector<Value*> import_svd(Call& call) {
  return svd(call, !call.boolean_or("some", true), call.boolean_or("compute_uv", true), false);
}

// --- Symmetric matrices ---

// Both triangles from the one that counts.
Value* symmetric(Call& call, Value* a, bool upper) {
  const int64_t n = rows_of(call, a);
  const Expr place = Expr(call, iota(call, ir::Dim(n))) - row_numbers(call, n);
  const Expr counts = place.apply(upper ? Op::ge : Op::le, 0);
  return counts.select({call, a}, {call, transposed(call, a)});
}

struct Eigen {
  Value *values, *vectors;  // [.., n], the smallest first, and [.., n, n] as columns
};

// A + s, with s so large that none of its eigenvalues is negative, has A's eigenvectors v as the directions that columns are
// turned by; v^T A v has the digits of the eigenvalues.
Eigen eigen(Call& call, Value* a) {
  const int64_t axis = rank_of(a) - 2, n = rows_of(call, a);
  Value* one = identity_like(call, a);
  if (n <= 1) {
    const ir::Shape shape(a->type.shape.begin(), a->type.shape.end() - 1);
    return {call.builder().reshape(a, shape), one};
  }
  require_numbers(call, a);
  const Expr rows(call,
                  reduce(call, Op::reduce_sum, Expr(call, a).apply(Op::abs), {axis + 1}, true));
  const Expr bound(call, reduce(call, Op::reduce_max, rows, {axis}, true));
  const Singular found = singular(call, Expr(call, a) + Expr(call, one) * bound, true);
  const Expr v(call, found.turns);
  const Expr product(call, call.make(Op::matmul, {a, v}, {{"transpose_b", false}}));
  const Expr size(call, reduce(call, Op::reduce_sum, v * v, {axis}, true));
  const Expr along(call, reduce(call, Op::reduce_sum, v * product, {axis}, true));
  const Expr quotient = bound.apply(Op::isinf).select(size.constant(kNaN), along / size);
  // Where there is no direction that is NaN, which goes last; with infinities all are.
  Value* order = order_of_columns(call, quotient, false, n);
  const Expr values(call, columns_in_order(call, quotient, order));
  const Expr vectors(call, columns_in_order(call, v, order));
  return {without_rows(call, values),
          values.apply(Op::isnan).select(vectors.constant(kNaN), vectors)};
}

bool counts_upper(Call& call) {
  const std::string side = call.text_or("UPLO", "L");
  return side == "U" || side == "u";
}

std::vector<Value*> import_eigh(Call& call) {
  const char* name = matrix_name(call);
  const DType dtype = dtype_of(call, name);
  const Eigen found = eigen(call, symmetric(call, wide_matrix(call, name), counts_upper(call)));
  const bool has_vectors = call.boolean_or("compute_v", true);
  return {call.builder().cast(found.values, dtype),
          has_vectors ? call.builder().cast(found.vectors, dtype) : nothing(call, dtype)};
}
Value* import_eigvalsh(Call& call) { return import_eigh(call)[0]; }

// --- Ranks, pseudo-inverses and conditions ---

double epsilon_of(DType dtype) { return dtype == DType::F64 ? 0x1p-52 : 0x1p-23; }

// Number or tensor of one tolerance for each matrix: [.., 1], null if it is not given.
std::optional<Expr> tolerance(Call& call, const char* name) {
  if (!call.has(name)) return std::nullopt;
  Value* x = as_value(call.builder(), call.operand(name), DType::F64);
  return Expr(call, x->type.rank() == 0 ? x : unsqueeze(call, x, rank_of(x)));
}

// What singular values, the largest first, have to exceed: the greater of atol and rtol times the largest. Without either rtol is
// what rounding makes of a matrix of this size, and 0 where there is an atol.
Expr threshold(const Expr& largest, const std::optional<Expr>& absolute,
               const std::optional<Expr>& relative, double usual) {
  const Expr atol = absolute ? *absolute : largest.constant(0);
  const Expr rtol = relative ? *relative
                    : absolute
                        ? atol.apply(Op::gt, 0).select(atol.constant(0), atol.constant(usual))
                        : largest.constant(usual);
  return atol.apply(Op::maximum, rtol * largest);
}

double usual_tolerance(const Value* a, DType dtype) {
  const ir::Dim &rows = a->type.shape[a->type.rank() - 2], &columns = a->type.shape.back();
  return epsilon_of(dtype) * static_cast<double>(std::max(rows.constant(), columns.constant()));
}

Value* given_matrix(Call& call, const char* name) {
  Value* a = wide_matrix(call, name);
  return call.boolean_or("hermitian", false) ? symmetric(call, a, false) : a;
}

Value* import_matrix_rank(Call& call) {
  const char* name = matrix_name(call);
  Value* a = given_matrix(call, name);
  const Tall tall = tall_matrix(call, a);
  Value* values = singular_values(call, a);
  if (tall.count == 0) return filled(call, DType::I64, leading(a), 0);
  const int64_t last = rank_of(values) - 1;
  const Expr largest(call, slice(call, values, last, 0, 1));
  const std::optional<Expr> only = tolerance(call, "tol");
  const Expr least = only ? *only
                          : threshold(largest, tolerance(call, "atol"), tolerance(call, "rtol"),
                                      usual_tolerance(a, dtype_of(call, name)));
  const Expr counts = Expr(call, values).apply(Op::gt, least);
  return reduce(call, Op::reduce_sum, call.builder().cast(counts, DType::I64), {last}, false);
}

// V S^-2 G^T of A = G V^T, of singular values that count.
Value* import_pinv(Call& call) {
  const char* name = matrix_name(call);
  Value* a = given_matrix(call, name);
  const Tall tall = tall_matrix(call, a);
  const DType dtype = dtype_of(call, name);
  if (tall.count == 0) return call.builder().cast(transposed(call, a), dtype);
  require_numbers(call, a);
  const Singular found = singular(call, tall.matrix, true);
  const Expr largest(call, reduce(call, Op::reduce_max, without_rows(call, found.lengths),
                                  {rank_of(a) - 2}, true));
  const std::optional<Expr> relative = tolerance(call, call.has("rcond") ? "rcond" : "rtol");
  const bool is_rcond = call.node().target.find("atol_rtol") == std::string::npos;
  const double usual = is_rcond ? 1e-15 : usual_tolerance(a, dtype);
  const Expr least = threshold(largest, tolerance(call, "atol"), relative, usual);
  const Expr lengths = found.lengths;
  const Expr counts = lengths.apply(
      Op::gt, {call, unsqueeze(call, least, rank_of(least) - (rank_of(least) > 0 ? 1 : 0))});
  const Expr inverse = counts.select(lengths.apply(Op::reciprocal), lengths.constant(0));
  const Expr scaled = Expr(call, found.turns) * inverse;
  Expr unit = Expr(call, found.columns) * inverse;
  // Of symmetric matrices with infinities PyTorch makes zeros, as nothing counts; of others NaN.
  if (call.boolean_or("hermitian", false)) unit = counts.select(unit, unit.constant(0));
  Value* product = call.make(Op::matmul, {scaled, unit}, {{"transpose_b", true}});
  return call.builder().cast(tall.is_transposed ? transposed(call, product) : product, dtype);
}

// The norm of order `order` of each matrix: of columns (1) or rows, the largest or the smallest; or Frobenius'.
Expr matrix_norm(Call& call, const Expr& a, double order, bool is_frobenius) {
  const int64_t axis = rank_of(a) - 2;
  const Expr size = a.apply(Op::abs);
  if (is_frobenius) return vector_norm(call, size, 2, {axis, axis + 1}, false);
  const int64_t summed = std::abs(order) == 1 ? axis : axis + 1;
  const Expr sums(call, reduce(call, Op::reduce_sum, size, {summed}, false));
  return {call, reduce(call, order > 0 ? Op::reduce_max : Op::reduce_min, sums, {axis}, false)};
}

// The norm of a matrix times that of its inverse, infinite where there is none.
Value* condition_by_inverse(Call& call, Value* a, double order, bool is_frobenius) {
  if (rows_of(call, a) == 0) return filled(call, DType::F64, leading(a), 0);
  const Elimination found = eliminate(call, a, identity_like(call, a));
  const Expr singular = for_matrices(
      call,
      Expr(call, first_failure(call, Expr(call, found.pivots).apply(Op::eq, 0))).apply(Op::ne, 0),
      2);
  const Expr right(call, found.right);
  const Expr inverse = singular.select(right.constant(kInfinity), right);
  const Expr product = matrix_norm(call, {call, a}, order, is_frobenius) *
                       matrix_norm(call, inverse, order, is_frobenius);
  return product.apply(Op::isnan).select(product.constant(kInfinity), product);
}

// The largest singular value over the smallest, or the other way around.
Value* condition_by_values(Call& call, Value* a, bool is_least) {
  Value* values = singular_values(call, a);
  const int64_t last = rank_of(values) - 1, count = values->type.shape.back().constant();
  if (count == 0) return filled(call, DType::F64, leading(a), 0);
  const auto at = [&](int64_t i) { return Expr(call, slice(call, values, last, i, 1)); };
  const Expr quotient = is_least ? at(count - 1) / at(0) : at(0) / at(count - 1);
  return call.builder().reshape(quotient, leading(a));
}

Value* import_cond(Call& call) {
  const char* name = matrix_name(call);
  Value* a = wide_matrix(call, name);
  const bool is_text = call.node().target.ends_with(".p_str");
  const std::string text = is_text ? call.text_or("p", "") : "";
  call.expect(!is_text || text == "fro", "p = \"" + text + "\"", "\"fro\" or a number");
  const double order = is_text ? 0 : call.real_or("p", 2), size = std::abs(order);
  call.expect(is_text || size == 1 || size == 2 || size == kInfinity,
              "p = " + std::to_string(order), "1, 2 or inf, or one of them negative");
  Value* result = size == 2 ? condition_by_values(call, a, order < 0)
                            : condition_by_inverse(call, a, order, is_text);
  return call.builder().cast(result, dtype_of(call, name));
}

// --- Exponential ---

// Of A / 2^s, whose norm is at most 1/2, by Taylor's series, and s squares of it. A matrix that takes fewer than another waits.
Value* import_matrix_exp(Call& call) {
  const char* name = matrix_name(call);
  Value* a = wide_matrix(call, name);
  const int64_t axis = rank_of(a) - 2, n = rows_of(call, a);
  if (n == 0) return call.tensor(name);
  const Expr sums(call, reduce(call, Op::reduce_sum, Expr(call, a).apply(Op::abs), {axis}, true));
  const Expr norm(call, reduce(call, Op::reduce_max, sums, {axis + 1}, true));
  constexpr double kMostSquares = 1100;
  const Expr wanted = (norm * 2).apply(Op::log2).apply(Op::ceil).apply(Op::maximum, 0);
  // What is not finite stays so without squares.
  const Expr squares = (norm - norm)
                           .apply(Op::eq, 0)
                           .select(wanted.apply(Op::minimum, kMostSquares), norm.constant(0));
  const Expr half = (squares * 0.5).apply(Op::floor);  // 2^-s may be below the normal numbers
  const Expr x = Expr(call, a) * (-half).apply(Op::exp2) * (half - squares).apply(Op::exp2);
  const auto multiply = [](Call& at, Value* left, Value* right) {
    return at.make(Op::matmul, {left, right}, {{"transpose_b", false}});
  };
  constexpr int kTerms = 16;
  const Expr one(call, identity_like(call, a));
  Expr sum = one + x / kTerms;
  for (int k = kTerms - 1; k > 0; --k) sum = one + Expr(call, multiply(call, x, sum)) / k;
  Repeat repeat(call.builder());
  const std::vector<Value*> carried = repeat.carry({sum.value(), squares.value()});
  Call inner(call, repeat.builder());
  const Expr left(inner, carried[1]);
  const Expr squared = left.apply(Op::gt, 0).select(
      {inner, multiply(inner, carried[0], carried[0])}, {inner, carried[0]});
  const auto any = [](Call& at, const Expr& rest) {
    return reduce(at, Op::reduce_max, rest.apply(Op::gt, 0), range(0, rank_of(rest)), false);
  };
  const Expr result(
      call, repeat.finish(any(call, squares), any(inner, left - 1), {squared, left - 1})[0]);
  // Of one element the exponential is known for infinities, too; of more it is NaN, as in PyTorch.
  const Expr known = n == 1 ? Expr(call, a).apply(Op::exp)
                            : norm.apply(Op::isinf).select(result.constant(kNaN), result);
  return call.builder().cast(known, dtype_of(call, name));
}

constexpr Row kRows[] = {
    {"aten.linalg_svdvals.default", import_svdvals},
    {"aten.linalg_svd.default", import_linalg_svd},
    {"aten._linalg_svd.default", import_linalg_svd},
    {"aten.svd.default", import_svd},
    {"aten.linalg_eigvalsh.default", import_eigvalsh},
    {"aten.linalg_eigh.default", import_eigh},
    {"aten._linalg_eigh.default", import_eigh},
    {"aten.linalg_matrix_rank.default", import_matrix_rank},
    {"aten.linalg_matrix_rank.tol_tensor", import_matrix_rank},
    {"aten.linalg_matrix_rank.atol_rtol_float", import_matrix_rank},
    {"aten.linalg_matrix_rank.atol_rtol_tensor", import_matrix_rank},
    {"aten.linalg_pinv.default", import_pinv},
    {"aten.linalg_pinv.rcond_tensor", import_pinv},
    {"aten.linalg_pinv.atol_rtol_float", import_pinv},
    {"aten.linalg_pinv.atol_rtol_tensor", import_pinv},
    {"aten.pinverse.default", import_pinv},
    {"aten.linalg_cond.default", import_cond},
    {"aten.linalg_cond.p_str", import_cond},
    {"aten.linalg_matrix_exp.default", import_matrix_exp},
    {"aten.matrix_exp.default", import_matrix_exp},
};

}  // namespace

Rows singular_rows() { return kRows; }

}  // namespace kiln::import
