// Functions of two operands: incomplete gamma functions and Hurwitz's zeta function, computed in f64.
#include <array>
#include <cmath>

#include "import/ops/special.h"
#include "import/repeat.h"

namespace kiln::import {
namespace {

struct Pair {
  Expr a, b;
  DType dtype;  // of the result
};

// Both operands in f64, with one shape.
Pair wide_pair(Call& call) {
  const Operand given[] = {call.operand("self"), call.operand("other")};
  const DType dtype = floating_result_type(given);
  std::array<Value*, 2> wide{};
  ir::Shape shape;
  for (size_t i = 0; i < 2; ++i) {
    wide[i] = call.builder().cast(as_value(call.builder(), given[i], dtype), DType::F64);
    shape = ir::broadcast_shapes(shape, wide[i]->type.shape);
  }
  return {{call, call.builder().expand(wide[0], shape)},
          {call, call.builder().expand(wide[1], shape)},
          dtype};
}

Value* any(Call& call, const Expr& condition) {
  return reduce(call, Op::reduce_max, condition,
                range(0, static_cast<int64_t>(condition.value()->type.rank())), false);
}

constexpr double kEpsilon = 0x1p-53;

// --- Incomplete gamma functions ---

// Both of a > 0 and x > 0: P, of the part below x, and Q = 1 - P, each with its digits where it is small.
struct Parts {
  Expr below, above;
};

// m - log(1 + m) of m = x / a - 1, which is nearly m^2 / 2 around 0.
Expr less_logarithm(const Expr& a, const Expr& x) {
  constexpr int kTerms = 18;
  std::array<double, kTerms> terms{};
  for (int k = 0; k < kTerms; ++k) terms[k] = (k % 2 == 0 ? 1.0 : -1.0) / (k + 2);
  const Expr m = (x - a) / a, size = m.apply(Op::abs);
  // Whichever of m and x / a has the digits.
  const Expr logarithm = size.apply(Op::lt, 0.5).select(m.apply(Op::log1p), (x / a).apply(Op::log));
  return size.apply(Op::lt, 0.1).select(m * m * polynomial(m, terms), m - logarithm);
}

// x^a e^-x / gamma(a + 1)
Expr common_factor(const Expr& a, const Expr& x) {
  constexpr double kFar = 10;
  const Expr small = a.apply(Op::minimum, kFar), large = a.apply(Op::maximum, kFar);
  const Expr near = (small * x.apply(Op::log) - x - log_gamma_beside_one(small)).apply(Op::exp);
  const Expr exponent = large * less_logarithm(large, x) + stirling_rest(large);
  const Expr far = (-exponent).apply(Op::exp) / (large * (2 * kPi)).apply(Op::sqrt);
  return a.apply(Op::lt, kFar).select(near, far);
}

// Of Temme's uniform expansion for large a (DLMF 8.12): coefficients by powers of e, and of 1 / a, where e^2 / 2 =
// m - log(1 + m) with m = x / a - 1.
constexpr double kUniform[][14] = {
    {-0.3333333333333333, 0.08333333333333333, -0.014814814814814815, 0.0011574074074074073,
     0.0003527336860670194, -0.0001787551440329218, 3.919263178522438e-05, -2.185448510679992e-06,
     -1.85406221071516e-06, 8.296711340953087e-07, -1.7665952736826078e-07, 6.707853543401498e-09,
     1.0261809784240309e-08, -4.382036018453353e-09},
    {-0.001851851851851852, -0.003472222222222222, 0.0026455026455026454, -0.0009902263374485596,
     0.00020576131687242798, -4.018775720164609e-07, -1.8098550334489977e-05, 7.64916091608111e-06,
     -1.6120900894563446e-06, 4.647127802807434e-09, 1.378633446915721e-07, -5.752545603517705e-08,
     1.1951628599778148e-08, -1.7543241719747647e-11},
    {0.004133597883597883, -0.0026813271604938273, 0.0007716049382716049, 2.0093878600823047e-06,
     -0.0001073665322636516, 5.2923448829120125e-05, -1.2760635188618728e-05, 3.423578734096138e-08,
     1.3721957309062934e-06, -6.298992138380055e-07, 1.4280614206064242e-07,
     -2.0477098421990866e-10, -1.409252991086752e-08, 6.228974084922022e-09},
    {0.0006494341563786008, 0.00022947209362139917, -0.0004691894943952557, 0.00026772063206283885,
     -7.561801671883977e-05, -2.396505113867297e-07, 1.1082654115347302e-05,
     -5.6749528269915965e-06, 1.4230900732435883e-06, -2.7861080291528143e-11,
     -1.6958404091930278e-07, 8.099464905388083e-08, -1.9111168485973655e-08,
     2.3928620439808118e-12},
    {-0.0008618882909167117, 0.0007840392217200666, -0.0002990724803031902, -1.4638452578843418e-06,
     6.641498215465122e-05, -3.968365047179435e-05, 1.1375726970678419e-05, 2.507497226237533e-10,
     -1.6954149536558305e-06, 8.907507532205309e-07, -2.292934834000805e-07, 2.956794137544049e-11,
     2.8865829742708783e-08, -1.4189739437803219e-08},
};
constexpr double kLeastUniform = 1000, kMostAside = 0.3;

Parts uniform(const Expr& a, const Expr& x) {
  const Expr half_square = less_logarithm(a, x);
  const Expr size = (half_square * 2).apply(Op::sqrt);
  const Expr e = x.apply(Op::lt, a).select(-size, size);
  const Expr inverse = a.apply(Op::reciprocal);
  Expr sum = a.constant(0);
  for (size_t k = std::size(kUniform); k-- > 0;) sum = sum * inverse + polynomial(e, kUniform[k]);
  const Expr rest = (-(a * half_square)).apply(Op::exp) * sum / (a * (2 * kPi)).apply(Op::sqrt);
  const Expr scaled = e * (a * 0.5).apply(Op::sqrt);
  return {(-scaled).apply(Op::erfc) * 0.5 - rest, scaled.apply(Op::erfc) * 0.5 + rest};
}

// Q for a < 1 and x up to 1.1: 1 - x^a / gamma(1 + a) less the other terms of the series for P.
Expr small_above(const Expr& a, const Expr& x) {
  constexpr int kTerms = 20;
  const Expr power = a * x.apply(Op::log) - log_gamma_beside_one(a);
  Expr factor = x.constant(1), sum = x.constant(0);
  for (int n = 1; n < kTerms; ++n) {
    factor = factor * x * (-1.0 / n);
    sum = sum + factor / (a + n);
  }
  return -power.apply(Op::expm1) - power.apply(Op::exp) * a * sum;
}

// What P and Q are times the common factor, by P's power series (1 + x / (a + 1) + ..) and by the continued fraction for Q, whichever
// converges. Where neither is wanted x is 0.
struct Sums {
  Expr series, fraction;
};

Sums sums(Call& call, const Expr& a, const Expr& x, const Expr& takes_series) {
  constexpr double kMost = 5000, kBig = 0x1p52;
  Value* ones = call.builder().expand(x.constant(1), x.value()->type.shape);
  const Expr p_start = x + 1, q_start = (x - a + 2) * x;
  Repeat repeat(call.builder());
  const std::vector<Value*> carried = repeat.carry({
      call.builder().scalar(DType::F64, 1),              // which term
      takes_series.apply(Op::eq, takes_series).value(),  // what has not converged
      ones, ones,                                        // a term of the series, the sum
      ones, x, p_start, q_start, p_start / q_start,  // numerators, denominators and their quotient
  });
  const std::vector<Value*> used = repeat.use({a.value(), x.value(), takes_series.value()});
  Call inner(call, repeat.builder());
  const auto state = [&](size_t i) { return Expr(inner, carried[i]); };
  const Expr order(inner, used[0]), at(inner, used[1]), is_series(inner, used[2]);
  const Expr k = state(0), goes_on = state(1);
  const Expr term = state(2) * at / (order + k), sum = state(3) + term;
  const Expr y = k + 1 - order, z = at + y + k + 1, factor = y * k;
  const Expr p = state(6) * z - state(4) * factor, q = state(7) * z - state(5) * factor;
  const Expr quotient = p / q;
  const Expr change = (state(8) - quotient).apply(Op::abs);
  const Expr is_far = is_series.select(term.apply(Op::gt, sum * kEpsilon),
                                       change.apply(Op::gt, quotient.apply(Op::abs) * kEpsilon));
  // Only the quotient of the last two counts.
  const Expr is_big = p.apply(Op::abs).apply(Op::gt, kBig);
  const auto scaled = [&](const Expr& value) { return is_big.select(value * (1 / kBig), value); };
  const Expr left = goes_on * is_far;
  const Expr again = Expr(inner, any(inner, left)) * k.apply(Op::lt, kMost);
  const std::vector<Value*> last =
      repeat.finish(call.builder().scalar(DType::Bool, 1), again,
                    {k + 1, left, term, goes_on.select(sum, state(3)), scaled(state(6)),
                     scaled(state(7)), scaled(p), scaled(q), goes_on.select(quotient, state(8))});
  return {{call, last[3]}, {call, last[8]}};
}

Parts incomplete_gamma(Call& call, const Expr& a, const Expr& x) {
  constexpr double kSmall = 1.1;
  const Expr aside = ((x - a) / a).apply(Op::abs);
  const Expr is_uniform = a.apply(Op::ge, kLeastUniform) * aside.apply(Op::lt, kMostAside);
  const Expr takes_series = x.apply(Op::le, a.apply(Op::maximum, kSmall)) + is_uniform;
  const Sums found = sums(call, a, is_uniform.select(x.constant(0), x), takes_series);
  const Expr factor = common_factor(a, x);
  const Expr series = factor * found.series, fraction = factor * a * found.fraction;
  const Expr is_small = a.apply(Op::lt, 1) * x.apply(Op::le, kSmall);
  const Expr rest = is_small.select(
      small_above(a.apply(Op::minimum, 1), x.apply(Op::minimum, kSmall)), 1 - series);
  const Parts far = uniform(a.apply(Op::maximum, kLeastUniform), x);
  return {is_uniform.select(far.below, takes_series.select(series, 1 - fraction)),
          is_uniform.select(far.above, takes_series.select(rest, fraction))};
}

template <bool is_above>
Value* import_incomplete_gamma(Call& call) {
  const Pair given = wide_pair(call);
  const Expr &a = given.a, &x = given.b, zero = x.constant(0), one = x.constant(1);
  const auto is_infinite = [](const Expr& value) { return value.apply(Op::eq, kInfinity); };
  const Expr is_plain = a.apply(Op::gt, 0) * a.apply(Op::lt, kInfinity) * x.apply(Op::gt, 0) *
                        x.apply(Op::lt, kInfinity);
  const Parts parts = incomplete_gamma(call, is_plain.select(a, one), is_plain.select(x, one));
  const Expr none = is_above ? one : zero, whole = is_above ? zero : one, nan = x.constant(kNaN);
  // In PyTorch's order.
  Expr edge = is_infinite(x).select(whole, nan);
  edge = is_infinite(a).select(is_infinite(x).select(nan, none), edge);
  edge = x.apply(Op::eq, 0).select(none, edge);
  edge = a.apply(Op::eq, 0).select(x.apply(Op::gt, 0).select(whole, nan), edge);
  edge = (x.apply(Op::lt, 0) + a.apply(Op::lt, 0)).select(nan, edge);
  return call.builder().cast(is_plain.select(is_above ? parts.above : parts.below, edge),
                             given.dtype);
}

// --- Zeta ---

// (q + n)^-s for n = 0, 1, .. until q + n > 0: of negative q alone.
struct Begun {
  Expr sum, rest;
};

Begun begin_zeta(Call& call, const Expr& s, const Expr& q) {
  const auto is_left = [](Call& at, const Expr& place) { return any(at, place.apply(Op::lt, 0)); };
  Repeat repeat(call.builder());
  const Expr start = q - q;
  const std::vector<Value*> carried = repeat.carry({start.value(), q.value()});
  Value* exponent = repeat.use(s.value());
  Call inner(call, repeat.builder());
  const Expr sum(inner, carried[0]), place(inner, carried[1]);
  const Expr goes_on = place.apply(Op::lt, 0);
  const Expr term = place.apply(Op::pow, -Expr(inner, exponent));
  const Expr next = goes_on.select(place + 1, place);
  const std::vector<Value*> last = repeat.finish(is_left(call, q), is_left(inner, next),
                                                 {goes_on.select(sum + term, sum), next});
  return {{call, last[0]}, {call, last[1]}};
}

// The sum of (q + n)^-s over all n from 0 on, for s > 1.
Expr hurwitz_zeta(Call& call, const Expr& s, const Expr& q) {
  constexpr int kFirst = 10;
  const Begun begun = begin_zeta(call, s, q);
  const auto power = [&](const Expr& base) { return base.apply(Op::pow, -s); };
  Expr sum = begun.sum;
  for (int k = 0; k < kFirst; ++k) sum = sum + power(k == 0 ? begun.rest : begun.rest + k);
  const Expr w = begun.rest + kFirst, last = power(w), inverse = w.apply(Op::reciprocal);
  Expr rest = last * w / (s - 1) + last * 0.5;
  Expr term = last * inverse * s, place = s;
  for (const double coefficient : kEulerMaclaurin) {
    rest = rest + term * coefficient;
    term = term * inverse * inverse * ((place + 1) * (place + 2));
    place = place + 2;
  }
  // For large s nothing is left, and the corrections are no numbers.
  return sum +
         last.apply(Op::gt, sum.apply(Op::abs) * (kEpsilon / 1024)).select(rest, rest.constant(0));
}

Value* import_zeta(Call& call) {
  const Pair given = wide_pair(call);
  const Expr &s = given.a, &q = given.b, nan = q.constant(kNaN), infinity = q.constant(kInfinity);
  const Expr is_whole = q.apply(Op::floor).apply(Op::eq, q), is_left = q.apply(Op::le, 0);
  const Expr is_pole = is_left * (is_whole + q.apply(Op::eq, -kInfinity));
  const Expr no_power = is_left * s.apply(Op::floor).apply(Op::ne, s);
  const Expr no_sum = q.apply(Op::eq, kInfinity) + s.apply(Op::eq, kInfinity) * q.apply(Op::gt, 1) +
                      q.apply(Op::isnan) + s.apply(Op::isnan);
  const Expr is_plain = (is_pole + no_power + no_sum).apply(Op::logical_not) * s.apply(Op::gt, 1);
  const Expr sum =
      hurwitz_zeta(call, is_plain.select(s, s.constant(2)), is_plain.select(q, q.constant(1)));
  Expr edge = is_pole.select(infinity, nan);
  edge = s.apply(Op::lt, 1).select(nan, edge);
  edge = s.apply(Op::eq, 1).select(infinity, edge);
  return call.builder().cast(is_plain.select(sum, edge), given.dtype);
}

constexpr Row kRows[] = {
    {"aten.igamma.default", import_incomplete_gamma<false>},
    {"aten.igammac.default", import_incomplete_gamma<true>},
    {"aten.special_gammainc.default", import_incomplete_gamma<false>},
    {"aten.special_gammaincc.default", import_incomplete_gamma<true>},
    {"aten.special_zeta.default", import_zeta},
    {"aten.special_zeta.other_scalar", import_zeta},
    {"aten.special_zeta.self_scalar", import_zeta},
};

}  // namespace

Rows incomplete_gamma_rows() { return kRows; }

}  // namespace kiln::import
