// Filters as Winograd's algorithm multiplies them (winograd.cpp), made when a model is compiled or refitted.
#pragma once

#include "ir/type.h"

namespace kiln::cpu {

// Whether a literal is filters of 3x3 in f32 or 16 bits, [o, 3, 3, c], and `results` the side of a tile that there is.
bool has_winograd_weights(const ir::Literal& filters, int64_t results);

// G g G^T of every filter: [o, n, n, c] with n = results + 2, in f32, rounded once.
ir::Literal winograd_weights(const ir::Literal& filters, int64_t results);

}  // namespace kiln::cpu
