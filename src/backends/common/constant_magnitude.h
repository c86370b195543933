// How large the elements of a constant are, for code that goes by it: kernels with equal keys share their code, so
// that what decides about code is in the key.
#pragma once

#include "plan/form/program.h"

namespace kiln::backend {

// A bound of the magnitudes of a small constant, one of few, so that most layers share their code; infinite where it is
// not known: of large or replaceable constants, and of those with elements that are no numbers.
double magnitude_bound(const plan::Buffer& buffer);

}  // namespace kiln::backend
