// What the two halves of the stub backend agree on beyond the engine file: its code.
//
// A kernel is an array of instructions for a machine with 64-bit registers, each of which holds an
// integer (bool: 0 or 1) or a double. A program's code is its kernels one after the other; a kernel
// begins at its entry with Begin and ends with Return. It is run once for each task, with the number
// of the task in register 0.
#pragma once

#include <cstdint>

#include "support/dtype.h"

namespace kiln::stub {

// What an instruction does to its registers `to`, `a`, `b` and `c`. "Typed" ones work on values of
// `dtype` and round to it.
enum class Code : uint8_t {
  Begin,      // immediate: number of registers
  Return,     //
  Constant,   // to = immediate: an integer, or the bits of a double
  Parameter,  // to = the step's parameter number `immediate`
  Load,       // typed: to = element a of the step's buffer number `immediate`
  Store,      // typed: element a of the step's buffer number `immediate` = b
  Loop,       // for (to = 0; to < a; ++to), up to the End; immediate: where that is, from the entry
  End,        // immediate: where the Loop is, from the entry
  SkipUnless,  // if a is 0, go on at instruction `immediate`, from the entry: it lies further on
  Note,        // check number `immediate` of the step fails if a is negative
  Convert,     // typed: to = a, which is of DType `immediate`
  Select,      // to = a ? b : c
  // Typed, of one operand
  Negate,
  Absolute,
  Exp,
  Log,
  Sqrt,
  Tanh,
  Erf,
  Floor,
  IsNan,
  // Typed, of two operands. Integers: Divide truncates, FloorDivide and Modulo round towards minus
  // infinity; a divisor of 0 gives 0. Comparisons give 0 or 1.
  Add,
  Subtract,
  Multiply,
  Divide,
  FloorDivide,  // this and what follows, up to Xor: integers only
  Modulo,
  And,
  Or,
  Xor,
  Maximum,
  Minimum,
  Equal,
  Less,
  LessEqual,
};
inline constexpr Code kLastCode = Code::LessEqual;

struct Instruction {
  Code code = Code::Return;
  DType dtype = DType::I64;
  uint16_t to = 0, a = 0, b = 0, c = 0;
  uint16_t reserved[7] = {};
  int64_t immediate = 0;
};
static_assert(sizeof(Instruction) == 32, "kernels are placed at multiples of 64 bytes");

// The element types that the machine knows.
constexpr bool has_dtype(DType dtype) {
  return dtype == DType::F32 || dtype == DType::F64 || dtype == DType::I32 || dtype == DType::I64 ||
         dtype == DType::Bool;
}

}  // namespace kiln::stub
