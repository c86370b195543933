// Discrete Fourier transforms of a known length.
#pragma once

#include "import/ops/complex.h"

namespace kiln::import {

// Of the last axis, without a factor: the sum over j of x[j] * e^(sign * 2 pi i j k / n) for all k.
// A null `im`: x is real.
Complex fourier(Call& call, const Complex& x, int sign);
// The same of the first n / 2 + 1 values of a real signal of n values.
Complex fourier_of_real(Call& call, Value* x);
// The real signal of n values whose transform begins with x, n / 2 + 1 values, times n.
Value* inverse_to_real(Call& call, const Complex& x, int64_t n);
Complex scaled(Call& call, const Complex& x, double factor);

}  // namespace kiln::import
