// Substitution of loop indices by values that are not positions.
#pragma once

#include <functional>

#include "plan/form/expr.h"

namespace kiln::plan {

using ValueMap = std::function<Expr(const ir::SymbolPtr&)>;

// The value of a Dim as arithmetic on i64 Exprs; the map returns null for a symbol that stays.
Expr to_expr(const ir::Dim& dim, const ValueMap& map);
// Replaces loop indices in every position by i64 Exprs.
Expr substitute_values(const Expr& expr, const ValueMap& map);

}  // namespace kiln::plan
