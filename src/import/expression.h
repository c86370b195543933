// Reads the size expressions of torch.export: the output of sympy's srepr,
// "Add(Integer(1), Mul(Integer(2), Symbol('s0', positive=True, integer=True)))".
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <string_view>

#include "ir/dim.h"

namespace kiln::import {

// The size that a symbol stands for; throws CompileError for one that it does not know.
using SymbolLookup = std::function<ir::Dim(std::string_view name)>;

// CompileError for text that is not such an expression, for a function that no Dim can express and
// for a value that is not always an integer.
ir::Dim parse_expression(std::string_view text, const SymbolLookup& lookup);

// A condition on sizes: 1 where it holds and 0 where it does not, or an integer that counts as true
// if it is not 0. Besides what parse_expression takes: Equality, Unequality, LessThan,
// StrictLessThan, GreaterThan, StrictGreaterThan, And, Or, Not, true and false.
ir::Dim parse_condition(std::string_view text, const SymbolLookup& lookup);

// A size factor * symbol + offset with factor >= 1: whoever knows the size knows the symbol.
struct LinearSize {
  std::string symbol;
  int64_t factor = 1, offset = 0;

  bool is_plain() const { return factor == 1 && offset == 0; }
};

// The expression in that form, if it has it: "2*s0 + 1", "s0".
std::optional<LinearSize> as_linear_size(std::string_view text);

}  // namespace kiln::import
