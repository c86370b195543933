// When results count as equal.
#pragma once

#include <string>

#include "ir/graph.h"

namespace kiln::conformance {

// Bound of the difference relative to the norm of what is expected, for results of a dtype; others
// are exact. A few roundings of the dtype: kernels sum in another order, and keep 16-bit results in
// f32 where the reference rounds each. The errors of single functions have their own tests.
double tolerance(DType dtype);

// What differs; empty if nothing does that matters.
std::string difference(const ir::Literal& got, const ir::Literal& expected);

}  // namespace kiln::conformance
