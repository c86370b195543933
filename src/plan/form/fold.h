// Folding of one Apply node whose operands are folded already.
#pragma once

#include <optional>

#include "ir/scalar.h"
#include "plan/form/expr.h"

namespace kiln::plan {

using ir::Scalar;

// The value of a Constant, as a scalar.
std::optional<Scalar> as_scalar(const Expr& expr);
Expr constant(const Scalar& value);

// The Dim that an i64 Position or Constant stands for.
std::optional<Index> as_index(const Expr& expr);

// A simpler equal expression, or null.
Expr fold_apply(ir::Op op, const std::vector<Expr>& args, bool gelu_tanh);
Expr fold_cast(const Expr& value, DType dtype);

}  // namespace kiln::plan
