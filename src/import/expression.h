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

// The name, if the text is one symbol and nothing else.
std::optional<std::string> as_plain_symbol(std::string_view text);

}  // namespace kiln::import
