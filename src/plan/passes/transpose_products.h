// Which products are computed the other way round.
#pragma once

#include "plan/form/program.h"

namespace kiln::plan {

// Whether the product of columns and rows changed over is faster on the target: it is what transpose_products makes.
bool gains_by_transpose(const Program& program, const MatMul& matmul);

}  // namespace kiln::plan
