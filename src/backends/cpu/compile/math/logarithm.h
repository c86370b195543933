// What logarithms and powers share.
#pragma once

#include "backends/cpu/compile/math/real.h"

namespace kiln::cpu {

// x = 2^power * (1 + fraction), 1 + fraction between sqrt(1/2) and sqrt(2), for finite x > 0.
struct Split {
  Real power, fraction;
};
Split split_exponent(Real x);

}  // namespace kiln::cpu
