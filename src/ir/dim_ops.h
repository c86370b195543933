// Ops of the IR on sizes and positions, as far as their ranges decide what comes out.
#pragma once

#include <optional>

#include "ir/dim.h"
#include "ir/op_table.h"

namespace kiln::ir {

// The truth of a comparison (eq, ne, lt, le, gt, ge); nothing where it depends on the symbols, and for other ops.
std::optional<bool> decide(Op op, const Dim& a, const Dim& b);

// The result of add, sub, mul, maximum, minimum and the divisions. Nothing for other ops, and where rounding depends
// on the symbols. Throws SizeOverflow.
std::optional<Dim> combine(Op op, const Dim& a, const Dim& b);

}  // namespace kiln::ir
