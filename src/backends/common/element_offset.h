// Where an access lies, apart from what is only known at run time.
#pragma once

#include <utility>
#include <vector>

#include "plan/form/program.h"

namespace kiln::backend {

// In elements from the start of the buffer: linear + the sum of value * stride.
struct ElementOffset {
  ir::Dim linear = 0;
  std::vector<std::pair<plan::Expr, ir::Dim>> dynamic =
      {};  // values that are computed, and strides
};

// One index counts elements whatever the rank of the buffer; otherwise there is one for each axis.
ElementOffset element_offset(const plan::Program& program, plan::BufferId buffer,
                             const std::vector<plan::Expr>& indices);

}  // namespace kiln::backend
