// Proofs that accesses stay inside their buffers.
#pragma once

#include "plan/form/expr.h"

namespace kiln::plan {

// Whether value >= 0 for all values of the symbols; looks into min and max, which Dim's own bounds
// treat as opaque.
bool provably_non_negative(const ir::Dim& value);

// Whether 0 <= index < size wherever the predicate holds; null: everywhere.
bool provably_in_range(const Expr& index, const ir::Dim& size, const Expr& predicate);
// Whether least <= index < end there.
bool provably_in_range(const Expr& index, const ir::Dim& least, const ir::Dim& end,
                       const Expr& predicate);

}  // namespace kiln::plan
