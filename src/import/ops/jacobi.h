// Jacobi's method: columns of small matrices are turned in pairs until all are at right angles.
#pragma once

#include "import/ops/linalg.h"

namespace kiln::import {

// A = G V^T, with V orthogonal: columns of G at right angles, whose lengths are the singular values. Their order has no meaning.
// If the number of columns is odd there is one more of zeros in both, wherever it ended.
struct Singular {
  Value* columns;  // G, [.., rows, n]
  Value* turns;    // V, [.., n, n], null unless asked for
  Expr lengths;    // [.., 1, n]; NaN of a matrix with infinities
};
// Of [.., rows, n], f64, with rows >= n > 0.
Singular singular(Call& call, Value* a, bool needs_turns);
// bool [.., 1, n]: whether a column of V is not that of zeros.
Expr has_direction(Call& call, const Singular& found);

}  // namespace kiln::import
