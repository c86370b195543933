// Angles modulo pi / 2.
#pragma once

#include "backends/cpu/compile/math/real.h"

namespace kiln::cpu {

// x = number * pi / 2 + rest, |rest| <= pi / 4 (and a little).
struct Quadrant {
  Real rest;
  llvm::Value* number;  // modulo 4 in its low bits, i64
};

// Of f64, however large; NaN for infinity. Makes blocks: only in call_function().
Quadrant reduce_by_half_pi(Real x);

}  // namespace kiln::cpu
