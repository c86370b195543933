// Jacobi's method, one-sided: when all columns are at right angles their lengths are the singular values. Each round of the loop
// turns pairs that have no column in common, and moves on to others.
#include "import/ops/jacobi.h"

#include <limits>

#include "import/repeat.h"

namespace kiln::import {
namespace {

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

}  // namespace

Singular singular(Call& call, Value* a, bool needs_turns) {
  const int64_t axis = rank_of(a) - 2, rows = a->type.shape[a->type.rank() - 2].constant();
  const int64_t n = a->type.shape.back().constant();
  // Numbers near the largest are scaled so that their squares are numbers.
  const Expr largest(
      call, reduce(call, Op::reduce_max, Expr(call, a).apply(Op::abs), {axis, axis + 1}, true));
  const Expr scale = largest.apply(Op::eq, 0).select(
      largest.constant(1),
      largest.apply(Op::isinf).select(largest.constant(std::numeric_limits<double>::quiet_NaN()),
                                      largest));
  Value* x = Expr(call, a) / scale;
  if (needs_turns)
    x = call.make(Op::concat, {x, rectangle(call, leading(a), n, n)}, {{"axis", axis}});
  if (n > 1) {
    if (n % 2 != 0) x = padded(call, x, 0, 1);  // a column of zeros, which is never turned
    x = make_orthogonal(call, x, rows);
  }
  const Expr unscaled(call, slice(call, x, axis, 0, rows));
  const Expr length =
      Expr(call, reduce(call, Op::reduce_sum, unscaled * unscaled, {axis}, true)).apply(Op::sqrt);
  return {unscaled * scale, needs_turns ? slice(call, x, axis, rows, n) : nullptr, length * scale};
}

Expr has_direction(Call& call, const Singular& found) {
  const Expr v(call, found.turns);
  return Expr(call, reduce(call, Op::reduce_max, v.apply(Op::abs), {rank_of(v) - 2}, true))
      .apply(Op::ne, 0);
}

}  // namespace kiln::import
