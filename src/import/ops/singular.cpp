// Singular values and eigenvalues of small matrices, and what follows from them. Vectors are not given: their signs are
// whatever LAPACK's steps lead to.
//
// Columns are turned in pairs until all are at right angles (Jacobi's method, one-sided); then their lengths are the
// singular values. Each round of the loop turns pairs that have no column in common, and moves on to others.
#include <algorithm>
#include <cmath>
#include <limits>
#include <string>

#include "import/ops/linalg.h"
#include "import/repeat.h"

namespace kiln::import {
namespace {

constexpr int64_t kMostSide = 1024;
constexpr double kInfinity = std::numeric_limits<double>::infinity();

// PyTorch raises for matrices with NaN or infinities.
void check_finite(Call& call, Value* a) {
  const Expr difference = Expr(call, a) - Expr(call, a);
  check_all(call, difference.apply(Op::eq, 0));
}

Value* padded(Call& call, Value* x, int64_t rows, int64_t columns) {
  std::vector<ir::Dim> before(x->type.rank(), 0), after(x->type.rank(), 0);
  after[x->type.rank() - 2] = rows;
  after.back() = columns;
  return pad_constant(call, x, before, after);
}

// Columns in the order of the pairs: number k belongs to number n - 1 - k. All but the first move on by one.
std::vector<int64_t> next_pairs(int64_t n) {
  std::vector<int64_t> order{0, n - 1};
  for (int64_t i = 1; i < n - 1; ++i) order.push_back(i);
  return order;
}

struct Turn {
  Value *columns, *any;  // any: bool scalar, whether a pair was far from right angles
};

// The pairs of [.., rows, n], with angles between the first `counted` rows.
Turn turn_pairs(Call& call, Value* x, int64_t counted) {
  const int64_t axis = rank_of(x) - 2, n = x->type.shape.back().constant(), half = n / 2;
  const Expr left(call, slice(call, x, axis + 1, 0, half));
  const Expr right(call, call.make(Op::flip, {slice(call, x, axis + 1, half, half)},
                                   {{"axes", std::vector<int64_t>{axis + 1}}}));
  const Expr a(call, slice(call, left, axis, 0, counted)),
      b(call, slice(call, right, axis, 0, counted));
  const auto sum = [&](const Expr& terms) {
    return Expr(call, reduce(call, Op::reduce_sum, terms, {axis}, true));
  };
  const Expr of_a = sum(a * a), of_b = sum(b * b), product = sum(a * b);
  const Expr sizes = of_a.apply(Op::sqrt) * of_b.apply(Op::sqrt);
  const auto is_beyond = [&](double cosine) {
    return product.apply(Op::abs).apply(Op::gt, sizes * cosine);
  };
  // A round of pairs that are this near right angles leaves angles of the square of that.
  constexpr double kRounding = 1e-15, kNear = 1e-9;
  const Expr turns = is_beyond(kRounding);
  const Expr zeta = (of_b - of_a) / (turns.select(product, product.constant(1)) * 2);
  const Expr size =
      (zeta.apply(Op::abs) + zeta.apply(Op::hypot, zeta.constant(1))).apply(Op::reciprocal);
  const Expr tangent = turns.select(zeta.apply(Op::lt, 0).select(-size, size), zeta.constant(0));
  const Expr cosine = (tangent * tangent + 1).apply(Op::rsqrt), sine = cosine * tangent;
  Value* turned = call.make(Op::flip, {left * sine + right * cosine},
                            {{"axes", std::vector<int64_t>{axis + 1}}});
  Value* columns =
      call.make(Op::concat, {left * cosine - right * sine, turned}, {{"axis", axis + 1}});
  const Expr far = is_beyond(kNear);
  return {columns, reduce(call, Op::reduce_max, far, range(0, rank_of(far)), false)};
}

// [.., rows, n] with columns at right angles in the first `counted` rows.
Value* make_orthogonal(Call& call, Value* x, int64_t counted) {
  const int64_t n = x->type.shape.back().constant(), rounds = n - 1;
  constexpr int64_t kMostSweeps = 60;
  const auto integer = [&](Call& at, int64_t value) {
    return at.builder().constant(ir::Literal::scalar_int(DType::I64, value));
  };
  Repeat repeat(call.builder());
  const std::vector<Value*> carried =
      repeat.carry({x, integer(call, 0), integer(call, 0)});  // quiet rounds in a row, all rounds
  Call inner(call, repeat.builder());
  const Turn turn = turn_pairs(inner, carried[0], counted);
  Value* moved = inner.make(Op::gather, {turn.columns, index_constant(inner, next_pairs(n))},
                            {{"axis", rank_of(x) - 1}});
  const Expr quiet(inner, carried[1]), all = Expr(inner, carried[2]) + 1;
  const Expr still = Expr(inner, turn.any).select(quiet.constant(0), quiet + 1);
  const Expr again = still.apply(Op::lt, static_cast<double>(rounds)) *
                     all.apply(Op::lt, static_cast<double>(rounds * kMostSweeps));
  return repeat.finish(call.builder().scalar(DType::Bool, 1), again, {moved, still, all})[0];
}

// A = G V^T, with V orthogonal: columns of G at right angles, whose lengths are the singular values.
struct Singular {
  Value* columns;  // G, [.., rows, n], and V, [.., n, n]
  Value* turns;
  Expr lengths;  // [.., 1, n]
};

// The longer side has to be the rows.
Singular singular(Call& call, Value* a, bool needs_turns) {
  const int64_t axis = rank_of(a) - 2, rows = a->type.shape[a->type.rank() - 2].constant();
  const int64_t n = a->type.shape.back().constant();
  check_finite(call, a);
  // Numbers near the largest are scaled so that their squares are numbers.
  const Expr largest(
      call, reduce(call, Op::reduce_max, Expr(call, a).apply(Op::abs), {axis, axis + 1}, true));
  const Expr scale = largest.apply(Op::eq, 0).select(largest.constant(1), largest);
  Value* x = Expr(call, a) / scale;
  if (needs_turns) {
    const Expr identity = row_numbers(call, n).apply(Op::eq, {call, iota(call, ir::Dim(n))});
    ir::Shape shape = a->type.shape;
    shape[shape.size() - 2] = n;
    Value* below = call.builder().expand(call.builder().cast(identity, DType::F64), shape);
    x = call.make(Op::concat, {x, below}, {{"axis", axis}});
  }
  if (n > 1) {
    if (n % 2 != 0) x = padded(call, x, 0, 1);  // a column of zeros, which is never turned
    x = make_orthogonal(call, x, rows);
  }
  // Where the zeros ended is not known: they stay, with the length 0.
  const Expr columns = Expr(call, slice(call, x, axis, 0, rows)) * scale;
  const Expr unscaled = Expr(call, slice(call, x, axis, 0, rows));
  const Expr length =
      Expr(call, reduce(call, Op::reduce_sum, unscaled * unscaled, {axis}, true)).apply(Op::sqrt);
  return {columns, needs_turns ? slice(call, x, axis, rows, n) : nullptr, length * scale};
}

// A matrix whose sides are known, as f64, with the longer side as rows.
struct Tall {
  Value* matrix;
  bool is_transposed;
  int64_t count;  // of singular values
};

Tall tall_matrix(Call& call, Value* a) {
  const ir::Dim &rows = a->type.shape[a->type.rank() - 2], &columns = a->type.shape.back();
  call.expect(rows.is_constant() && columns.is_constant(), shape_text(a->type.shape),
              "matrices of a known size");
  const int64_t m = rows.constant(), n = columns.constant();
  call.expect(
      std::min(m, n) <= kMostRows && std::max(m, n) <= kMostSide, shape_text(a->type.shape),
      "sides of at most " + std::to_string(kMostRows) + " and " + std::to_string(kMostSide));
  return {m < n ? transposed(call, a) : a, m < n, std::min(m, n)};
}

Value* sorted(Call& call, Value* values, bool descending, int64_t count) {
  const int64_t last = rank_of(values) - 1;
  Value* order = call.make(Op::argsort, {values},
                           {{"axis", last}, {"descending", descending}, {"count", ir::Dim(count)}});
  return call.make(Op::gather_elements, {values, order}, {{"axis", last}});
}

Value* without_rows(Call& call, Value* x) {
  ir::Shape shape = x->type.shape;
  shape.erase(shape.end() - 2);
  return call.builder().reshape(x, shape);
}

// [.., count], the largest first.
Value* singular_values(Call& call, Value* a) {
  const Tall tall = tall_matrix(call, a);
  if (tall.count == 0) {
    ir::Shape shape(a->type.shape.begin(), a->type.shape.end() - 2);
    shape.emplace_back(0);
    return call.builder().expand(call.builder().scalar(DType::F64, 0), shape);
  }
  const Singular found = singular(call, tall.matrix, false);
  return sorted(call, without_rows(call, found.lengths), true, tall.count);
}

const char* matrix_name(Call& call) {
  return call.has("A") ? "A" : call.has("input") ? "input" : "self";
}

Value* import_svdvals(Call& call) {
  const char* name = matrix_name(call);
  return call.builder().cast(singular_values(call, wide_matrix(call, name)), dtype_of(call, name));
}

void expect_no_vectors(Call& call, std::initializer_list<size_t> outputs) {
  for (const size_t i : outputs)
    call.expect(!call.output_used(i), "a use of vectors, whose signs are not defined",
                "the values only");
}

std::vector<Value*> import_svd(Call& call) {
  expect_no_vectors(call, {0, 2});
  return {nullptr, import_svdvals(call), nullptr};
}

// --- Symmetric matrices ---

// Both triangles from the one that counts.
Value* symmetric(Call& call, Value* a, bool upper) {
  const int64_t n = rows_of(call, a);
  const Expr place = Expr(call, iota(call, ir::Dim(n))) - row_numbers(call, n);
  const Expr counts = place.apply(upper ? Op::ge : Op::le, 0);
  return counts.select({call, a}, {call, transposed(call, a)});
}

// Eigenvalues of A: A + s, with s so large that none of its eigenvalues is negative, has its eigenvectors v as the directions
// that columns are turned by; v^T A v has their digits.
Value* eigenvalues(Call& call, Value* a) {
  const int64_t axis = rank_of(a) - 2, n = rows_of(call, a);
  if (n <= 1) {
    check_finite(call, a);
    return call.builder().reshape(a, ir::Shape(a->type.shape.begin(), a->type.shape.end() - 1));
  }
  const Expr rows(call,
                  reduce(call, Op::reduce_sum, Expr(call, a).apply(Op::abs), {axis + 1}, true));
  const Expr bound(call, reduce(call, Op::reduce_max, rows, {axis}, true));
  Value* one = identity_like(call, a);
  const Singular found = singular(call, Expr(call, a) + Expr(call, one) * bound, true);
  const Expr v(call, found.turns);
  const Expr product(call, call.make(Op::matmul, {a, v}, {{"transpose_b", false}}));
  const Expr size(call, reduce(call, Op::reduce_sum, v * v, {axis}, true));
  const Expr quotient = Expr(call, reduce(call, Op::reduce_sum, v * product, {axis}, true)) / size;
  // The column that made their number even has no direction: it goes last.
  const Expr value = size.apply(Op::eq, 0).select(size.constant(kInfinity), quotient);
  return sorted(call, without_rows(call, value), false, n);
}

bool counts_upper(Call& call) {
  const std::string side = call.text_or("UPLO", "L");
  return side == "U" || side == "u";
}

Value* import_eigvalsh(Call& call) {
  const char* name = matrix_name(call);
  Value* a = symmetric(call, wide_matrix(call, name), counts_upper(call));
  return call.builder().cast(eigenvalues(call, a), dtype_of(call, name));
}

std::vector<Value*> import_eigh(Call& call) {
  expect_no_vectors(call, {1});
  return {import_eigvalsh(call), nullptr};
}

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
  if (tall.count == 0)
    return call.builder().expand(call.builder().scalar(DType::I64, 0),
                                 ir::Shape(a->type.shape.begin(), a->type.shape.end() - 2));
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
  const Expr scaled = Expr(call, found.turns) * inverse, unit = Expr(call, found.columns) * inverse;
  Value* product = call.make(Op::matmul, {scaled, unit}, {{"transpose_b", true}});
  return call.builder().cast(tall.is_transposed ? transposed(call, product) : product, dtype);
}

// The largest singular value over the smallest, or the other way around.
Value* import_cond(Call& call) {
  const char* name = matrix_name(call);
  const double order = call.real_or("p", 2);
  call.expect(std::abs(order) == 2, "p = " + std::to_string(order), "2 or -2");
  Value* values = singular_values(call, wide_matrix(call, name));
  const int64_t last = rank_of(values) - 1, count = values->type.shape.back().constant();
  call.expect(count > 0, "a matrix without elements", "elements");
  const auto at = [&](int64_t i) { return Expr(call, slice(call, values, last, i, 1)); };
  const Expr quotient = order > 0 ? at(0) / at(count - 1) : at(count - 1) / at(0);
  ir::Shape shape(values->type.shape.begin(), values->type.shape.end() - 1);
  return call.builder().cast(call.builder().reshape(quotient, shape), dtype_of(call, name));
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
  Value* result = repeat.finish(any(call, squares), any(inner, left - 1), {squared, left - 1})[0];
  return call.builder().cast(result, dtype_of(call, name));
}

constexpr Row kRows[] = {
    {"aten.linalg_svdvals.default", import_svdvals},
    {"aten.linalg_svd.default", import_svd},
    {"aten._linalg_svd.default", import_svd},
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
    {"aten.linalg_matrix_exp.default", import_matrix_exp},
    {"aten.matrix_exp.default", import_matrix_exp},
};

}  // namespace

Rows singular_rows() { return kRows; }

}  // namespace kiln::import
