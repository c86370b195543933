// What files of special functions share: series of known coefficients, and gamma functions that others are made of. In f64.
#pragma once

#include <limits>
#include <numbers>
#include <span>

#include "import/ops/common.h"

namespace kiln::import {

constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();
constexpr double kPi = std::numbers::pi;

// The sum of coefficients times Chebyshev polynomials of t in [-1, 1], by Clenshaw's recurrence.
Expr chebyshev(const Expr& t, std::span<const double> coefficients);
// coefficients[0] + coefficients[1] x + ...
Expr polynomial(const Expr& x, std::span<const double> coefficients);

// log(gamma(1 + x)), from -1/2 on, with all digits near 0.
Expr log_gamma_beside_one(const Expr& x);
// The sum of (x + k)^-s over all k from 0 on, x > 0 and s > 1 for whole s.
Expr zeta(const Expr& x, int64_t s);
// log(gamma(x)) less (x - 1/2) log(x) - x + log(2 pi) / 2, from 10 on: what is left of Stirling's formula.
Expr stirling_rest(const Expr& x);
// B(2k) / (2k)!: Euler's and Maclaurin's corrections of an integral to a sum.
inline constexpr double kEulerMaclaurin[] = {1.0 / 12,          -1.0 / 720,
                                             1.0 / 30240,       -1.0 / 1209600,
                                             1.0 / 47900160,    -691.0 / 1307674368000,
                                             1.0 / 74724249600, -3617.0 / 10670622842880000};

}  // namespace kiln::import
