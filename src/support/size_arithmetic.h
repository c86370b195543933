// Arithmetic on sizes of tensors, with Python's meaning: the functions of every size program,
// whether it lies in an engine, in a package or in the operator's spec.
//
// Where a size program is written down, an instruction is the text "<function> <operand> <operand>",
// such as "add i0_1 1". An operand is a number, a size of an input ("i<input>_<dimension>") or the
// result of an earlier instruction ("#<number>", from 0). What is not zero is true. Python has the
// same in python/torch_tensorrt/_sizes.py.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

namespace kiln {

enum class SizeFunction : uint8_t {
  Add,
  Sub,
  Mul,
  FloorDiv,  // rounds towards minus infinity
  Mod,       // has the sign of the divisor
  Pow,
  Min,
  Max,
  Equal,
  NotEqual,
  Less,
  LessEqual,
  Greater,
  GreaterEqual,
  And,
  Or,
};

// Nothing where there is no 64-bit value: overflow, division by zero, negative powers.
using SizeValue = std::optional<int64_t>;

// "add", "floordiv", "le", ...; a 0 follows.
std::string_view size_function_name(SizeFunction function);
std::optional<SizeFunction> size_function_named(std::string_view name);

// The second operand of And and Or may be nothing where the first decides; otherwise nothing gives
// nothing.
SizeValue apply_size_function(SizeFunction function, SizeValue left, SizeValue right);

}  // namespace kiln
