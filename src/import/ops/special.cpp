// Special functions of one operand: gamma and error functions and what is made of them, computed in f64.
#include "import/ops/special.h"

#include <cmath>
#include <vector>

namespace kiln::import {
namespace {

const double kHalfLogTau = 0.5 * std::log(2 * kPi);

// x less the nearest integer: pi times it has the tangent and, but for the sign, the sine of pi x.
Expr turn(const Expr& x) { return x - x.apply(Op::round); }

// --- Gamma ---

// log(gamma(1 + t / 2)) / (t / 2), and log(gamma(2 + u)) / u with u = (1 + 3 t) / 4.
constexpr double kLogGamma1[] = {
    -0.633011426275031,      0.4405675574678963,      -0.057857409449912446,
    0.010513973690267811,    -0.002163989092091715,   0.0004744402338724658,
    -0.00010799644528099427, 2.5201155299530276e-05,  -5.986014498026819e-06,
    1.4410616180293054e-06,  -3.5060690575761177e-07, 8.603823016763753e-08,
    -2.126510912478688e-08,  5.287778091463614e-09,   -1.3217135752166157e-09,
    3.3186698554450495e-10,  -8.365902567746219e-11,  2.116338666160694e-11,
    -5.370507653794381e-12,  1.3666688100545857e-12,  -3.486660039885161e-13,
    8.915622432767707e-14,   -2.28454959350908e-14,   5.86514671522212e-15,
    -1.5084071183968602e-15, 3.885614648428306e-16,   -1.0024188186640361e-16,
    2.5896418565384152e-17,  -6.69867474095857e-18};
constexpr double kLogGamma2[] = {
    0.48362763659842517,     0.22408351337696908,     -0.016061611364725618,
    0.0016796351005504537,   -0.000206207082576848,   2.7619482587698902e-05,
    -3.902432064395172e-06,  5.712600238782988e-07,   -8.57232441585347e-08,
    1.3098706178370361e-08,  -2.0291174319191596e-09, 3.177019404112652e-10,
    -5.0168902255267044e-11, 7.977607508944761e-12,   -1.2759320707466868e-12,
    2.0507506001786822e-13,  -3.309998326505828e-14,  5.362087191185866e-15,
    -8.714427500704616e-16,  1.4203170417419452e-16,  -2.3208252786405174e-17};
// B(2k) / (2k (2k - 1)), of Stirling's series in 1 / x, and B(2k) / 2k, of that of its derivative.
constexpr double kStirling[] = {1.0 / 12,   -1.0 / 360,      1.0 / 1260, -1.0 / 1680,
                                1.0 / 1188, -691.0 / 360360, 1.0 / 156,  -3617.0 / 122400};
constexpr double kDerivative[] = {1.0 / 12,  -1.0 / 120,     1.0 / 252, -1.0 / 240,
                                  1.0 / 132, -691.0 / 32760, 1.0 / 12,  -3617.0 / 8160};
// Where they are good to the last digit.
constexpr int kFar = 10;

Expr near_one(const Expr& beside) { return beside * chebyshev(beside * 2, kLogGamma1); }

// From 1/2 on. Around its zeros, at 1 and 2, a polynomial; farther on x is taken beyond kFar by
// log(gamma(x)) = log(gamma(x + 7)) - log(x (x + 1) .. (x + 6)).
Expr log_gamma_right(const Expr& x) {
  const Expr two = x - 2;
  const Expr near_two = two * chebyshev((two * 4 - 1) / 3, kLogGamma2);
  const Expr is_near = x.apply(Op::lt, kFar);
  const Expr bounded = x.apply(Op::minimum, kFar);
  Expr product = bounded;
  for (int k = 1; k < 7; ++k) product = product * (bounded + k);
  const Expr w = is_near.select(x + 7, x);
  const Expr far = (w - 0.5) * w.apply(Op::log) - w + (stirling_rest(w) + kHalfLogTau);
  const Expr shifted = is_near.select(far - product.apply(Op::log), far);
  const Expr right = w.apply(Op::eq, kInfinity).select(w, shifted);
  return x.apply(Op::lt, 1.5).select(near_one(x - 1), x.apply(Op::lt, 3).select(near_two, right));
}

// gamma(x) gamma(1 - x) = pi / sin(pi x); infinite at 0, -1, -2 ..
Expr compose_lgamma(Call&, const Expr& x) {
  const Expr is_left = x.apply(Op::lt, 0.5);
  const Expr right = log_gamma_right(is_left.select(1 - x, x));
  const Expr sine = (turn(x) * kPi).apply(Op::sin).apply(Op::abs);
  const Expr left = std::log(kPi) - sine.apply(Op::log) - right;
  const Expr result =
      is_left.select(sine.apply(Op::eq, 0).select(x.constant(kInfinity), left), right);
  return x.apply(Op::isinf).select(x.constant(kInfinity), result);
}

// log of the multivariate gamma function of p dimensions.
Expr compose_mvlgamma(Call& call, const Expr& x) {
  const int64_t p = call.integer("p");
  call.expect(p >= 1 && p <= 64, "p = " + std::to_string(p), "1 to 64");
  Expr sum = compose_lgamma(call, x);
  for (int64_t i = 1; i < p; ++i) sum = sum + compose_lgamma(call, x - static_cast<double>(i) / 2);
  return sum + static_cast<double>(p * (p - 1)) / 4 * std::log(kPi);
}

// The derivative of log(gamma(x)), from 1/2 on: psi(x) = psi(x + n) - 1 / x - .. - 1 / (x + n - 1), the sum as one
// quotient.
Expr digamma_right(const Expr& x) {
  const Expr is_near = x.apply(Op::lt, kFar);
  const Expr bounded = x.apply(Op::minimum, kFar);
  Expr below = bounded, above = x.constant(1);
  for (int k = 1; k < kFar; ++k) {
    const Expr factor = bounded + k;
    above = above * factor + below;
    below = below * factor;
  }
  const Expr w = is_near.select(x + kFar, x);
  const Expr inverse = w.apply(Op::reciprocal), square = inverse * inverse;
  const Expr far = w.apply(Op::log) - inverse * 0.5 - square * polynomial(square, kDerivative);
  return is_near.select(far - above / below, far);
}

// psi(1 - x) - psi(x) = pi / tan(pi x). At 0 infinite, with the other sign; at -1, -2 .. NaN.
Expr compose_digamma(Call&, const Expr& x) {
  const Expr is_left = x.apply(Op::lt, 0.5);
  const Expr right = digamma_right(is_left.select(1 - x, x));
  const Expr rest = turn(x);
  const Expr left = right - x.constant(kPi) / (rest * kPi).apply(Op::tan);
  const Expr is_pole = rest.apply(Op::eq, 0) + x.apply(Op::eq, -kInfinity);
  const Expr result = is_left.select(is_pole.select(x.constant(kNaN), left), right);
  return x.apply(Op::eq, 0).select(-x.apply(Op::reciprocal), result);
}

// Coefficients by powers of c of the n-th derivative of cot(x), c = cot(x), whose own is -(1 + c^2).
std::vector<double> cotangent_derivative(int64_t n) {
  std::vector<double> p{0, 1};
  for (; n > 0; --n) {
    std::vector<double> next(p.size() + 1, 0);
    for (size_t k = 1; k < p.size(); ++k) {
      next[k - 1] -= static_cast<double>(k) * p[k];
      next[k + 1] -= static_cast<double>(k) * p[k];
    }
    p = std::move(next);
  }
  return p;
}

// The n-th derivative of digamma: (-1)^(n + 1) n! zeta(n + 1, x), and for negative x
// psi_n(x) = (-1)^n psi_n(1 - x) - pi^(n + 1) cot^(n)(pi x).
Expr polygamma(const Expr& x, int64_t n) {
  const double sign = n % 2 == 0 ? 1 : -1, scale = -sign * std::tgamma(static_cast<double>(n + 1));
  const Expr is_left = x.apply(Op::lt, 0);
  const Expr right = zeta(is_left.select(1 - x, x.apply(Op::abs)), n + 1) * scale;
  const Expr rest = turn(x);
  const Expr cotangent = (rest * kPi).apply(Op::tan).apply(Op::reciprocal);
  const Expr reflected =
      polynomial(cotangent, cotangent_derivative(n)) * std::pow(kPi, static_cast<double>(n + 1));
  const Expr left = right * sign - reflected;
  const Expr is_pole =
      n == 1 ? rest.apply(Op::eq, 0) : rest.apply(Op::eq, 0) + x.apply(Op::eq, -kInfinity);
  return is_left.select(is_pole.select(x.constant(-sign * kInfinity), left), right);
}

Expr compose_polygamma(Call& call, const Expr& x) {
  const int64_t n = call.integer("n");
  constexpr int64_t kMost = 16;
  call.expect(n >= 0 && n <= kMost, "the derivative " + std::to_string(n),
              "0 to " + std::to_string(kMost));
  return n == 0 ? compose_digamma(call, x) : polygamma(x, n);
}

// --- Errors ---

// (1 + 2 x) e^(x^2) erfc(x) with x = 3.75 (1 + t) / (1 - t).
constexpr double kErfcx[] = {
    1.1775789345674017,     -0.004590054580646478,   -0.08424913336651792,
    0.05920993999819189,    -0.026658668435305753,   0.009074997670705265,
    -0.002413163540417608,  0.0004907758365258086,   -6.916973302501207e-05,
    4.13902798607301e-06,   7.74038306619849e-07,    -2.1886401049234397e-07,
    1.076499946567091e-08,  4.521959811218287e-09,   -7.754400208831351e-10,
    -6.318088340886684e-11, 2.86879501093067e-11,    1.9455868545777347e-13,
    -9.65469674843344e-13,  3.25254814814874e-14,    3.3478119482868056e-14,
    -1.864562880419313e-15, -1.2507950530688648e-15, 7.418235256624044e-17,
    5.068148904796111e-17};

// e^(x^2) erfc(x) for x >= 0.
Expr scaled_erfc(const Expr& x) {
  constexpr double kMiddle = 3.75;
  const Expr t = 1.0 - x.constant(2 * kMiddle) / (x + kMiddle);
  return chebyshev(t, kErfcx) / (x * 2 + 1);
}

// erfcx(-x) = 2 e^(x^2) - erfcx(x), the square in two parts so that it is not rounded.
Expr compose_erfcx(Call& call, const Expr& x) {
  ir::Builder& builder = call.builder();
  const Expr right = scaled_erfc(x.apply(Op::abs));
  const Expr bounded = x.apply(Op::maximum, -30);
  const Expr high(call, builder.cast(builder.cast(bounded, DType::F32), DType::F64));
  const Expr square =
      (high * high).apply(Op::exp) * ((bounded - high) * (bounded + high)).apply(Op::exp);
  const Expr result = x.apply(Op::lt, 0).select(square * 2 - right, right);
  return x.apply(Op::isnan).select(x, result);
}

// The x >= 0 with erfc(x) = q and erf(x) = p, both within [0, 1] and their sum 1. Newton's steps from a formula of
// Winitzki's for the logarithm of erfc, which is nearly a parabola; for small p Halley's for erf.
Expr inverse_error(const Expr& p, const Expr& q) {
  constexpr double kShape = 0.147, kSlope = 0.886226925452758;  // sqrt(pi) / 2
  const Expr target = q.apply(Op::log);
  const Expr whole = (q * (2 - q)).apply(Op::log);
  const Expr half = whole * 0.5 + 2 / (kPi * kShape);
  Expr far = ((half * half - whole / kShape).apply(Op::sqrt) - half).apply(Op::sqrt);
  for (int step = 0; step < 3; ++step) {
    const Expr scaled = scaled_erfc(far);
    far = far + scaled * kSlope * (scaled.apply(Op::log) - far * far - target);
  }
  const Expr small = p.apply(Op::minimum, 0.5);
  Expr near = small * kSlope * (small * small * 0.2618 + 1);
  for (int step = 0; step < 2; ++step) {
    const Expr newton = (near.apply(Op::erf) - small) * kSlope * (near * near).apply(Op::exp);
    near = near - newton / (near * newton + 1);
  }
  const Expr result = p.apply(Op::lt, 0.5).select(near, far);
  return q.apply(Op::eq, 0).select(q.constant(kInfinity), result);
}

Expr compose_erfinv(Call&, const Expr& x) {
  const Expr size = x.apply(Op::abs);
  const Expr result = inverse_error(size, 1 - size);
  const Expr known = x.apply(Op::lt, 0).select(-result, result);
  const Expr inside = size.apply(Op::le, 1).select(known, x.constant(kNaN));
  return x.apply(Op::eq, 0).select(x, inside);  // both zeros
}

// The quantile of the normal distribution.
Expr compose_ndtri(Call&, const Expr& p) {
  const Expr is_left = p.apply(Op::lt, 0.5);
  const Expr tail = is_left.select(p, 1 - p) * 2;
  const Expr size = inverse_error(1 - tail, tail) * std::numbers::sqrt2;
  const Expr result = is_left.select(-size, size);
  const Expr inside = p.apply(Op::ge, 0) * p.apply(Op::le, 1);
  return inside.select(result, p.constant(kNaN));
}

// The share of the normal distribution below x: half of erfc, which has digits left where x is very negative.
Expr compose_ndtr(Call&, const Expr& x) {
  return (x * -(1 / std::numbers::sqrt2)).apply(Op::erfc) * 0.5;
}

Expr compose_log_ndtr(Call&, const Expr& x) {
  const Expr z = x * (1 / std::numbers::sqrt2);
  const Expr left = (scaled_erfc(z.apply(Op::abs)) * 0.5).apply(Op::log) - z * z;
  const Expr right = (z.apply(Op::erfc) * -0.5).apply(Op::log1p);
  return x.apply(Op::lt, -1).select(left, right);
}

constexpr Row kRows[] = {
    {"aten.lgamma.default", composed_in_f64<compose_lgamma>},
    {"aten.special_gammaln.default", composed_in_f64<compose_lgamma>},
    {"aten.mvlgamma.default", composed_in_f64<compose_mvlgamma>},
    {"aten.special_multigammaln.default", composed_in_f64<compose_mvlgamma>},
    {"aten.digamma.default", composed_in_f64<compose_digamma>},
    {"aten.special_digamma.default", composed_in_f64<compose_digamma>},
    {"aten.special_psi.default", composed_in_f64<compose_digamma>},
    {"aten.polygamma.default", composed_in_f64<compose_polygamma>},
    {"aten.special_polygamma.default", composed_in_f64<compose_polygamma>},
    {"aten.special_erfcx.default", composed_in_f64<compose_erfcx>},
    {"aten.erfinv.default", composed_in_f64<compose_erfinv>},
    {"aten.special_erfinv.default", composed_in_f64<compose_erfinv>},
    {"aten.special_ndtr.default", composed_in_f64<compose_ndtr>},
    {"aten.special_ndtri.default", composed_in_f64<compose_ndtri>},
    {"aten.special_log_ndtr.default", composed_in_f64<compose_log_ndtr>},
};

}  // namespace

Expr chebyshev(const Expr& t, std::span<const double> coefficients) {
  const Expr twice = t * 2;
  Expr next = t.constant(coefficients.back()), after = t.constant(0);
  for (size_t i = coefficients.size() - 1; i-- > 1;) {
    const Expr here = twice * next - after + coefficients[i];
    after = next;
    next = here;
  }
  return t * next - after + coefficients[0];
}

Expr polynomial(const Expr& x, std::span<const double> coefficients) {
  Expr sum = x.constant(coefficients.back());
  for (size_t i = coefficients.size() - 1; i-- > 0;) sum = sum * x + coefficients[i];
  return sum;
}

Expr log_gamma_beside_one(const Expr& x) {
  return x.apply(Op::lt, 0.5).select(near_one(x.apply(Op::minimum, 0.5)), log_gamma_right(x + 1));
}

Expr stirling_rest(const Expr& x) {
  const Expr inverse = x.apply(Op::reciprocal);
  return inverse * polynomial(inverse * inverse, kStirling);
}

// The first ones, and the integral of the others with Euler's and Maclaurin's corrections.
Expr zeta(const Expr& x, int64_t s) {
  const auto power = [](const Expr& base, int64_t exponent) {
    return base.apply(Op::pow, static_cast<double>(-exponent));
  };
  const int64_t first = kFar + s;
  Expr sum = power(x, s);
  for (int64_t k = 1; k < first; ++k) sum = sum + power(x + static_cast<double>(k), s);
  const Expr w = x + static_cast<double>(first);
  const Expr last = power(w, s), inverse = w.apply(Op::reciprocal);
  sum = sum + power(w, s - 1) / static_cast<double>(s - 1) + last * 0.5;
  Expr term = last * inverse * static_cast<double>(s);
  double place = static_cast<double>(s);
  for (const double coefficient : kEulerMaclaurin) {
    sum = sum + term * coefficient;
    term = term * inverse * inverse * ((place + 1) * (place + 2));
    place += 2;
  }
  return sum;
}

Rows special_rows() { return kRows; }

}  // namespace kiln::import
