// One row times a weight of 4 bits, in integers.
//
// A byte of the row times a byte of the weight, four steps at a time (vpdpbusd), is a quarter of the instructions that as many
// multiply-adds of f32 take, and four bits become bytes by a shift and a mask. So each group of the row is written in fixed point:
//   x = unit * (d0 + 256 d1 + 65536 d2),  digits from -128 to 127,  unit a power of two,
// with the largest x of the group just below what the digits reach. Three digits are off by 2^-23 of that x at most, half of what
// a sum in f32 is rounded by; rows of 16 bits have two, off by 2^-15. Sums of a digit are exact. Weights are taken as w + 8, which is
// no less than zero; 8 times the sum of the digits is what the sums start from.
//
// What fixed point does not hold is multiplied in f32 as ever (group_panel.h): a row with an infinity, a NaN, a
// group whose largest x is so small that its unit, or what it multiplies, would be denormal, or a group with so few large
// elements that the others lose what matters: columns may well multiply the large ones by 0. At least a quarter of
// those that are not 0 have to be 2^-6 of the largest; then what is lost is 1e-5 of the group without its largest.
#pragma once

#include "backends/cpu/compile/contract/group_panel.h"

namespace kiln::cpu {

// The digits that a row of elements of `a` is written in; 0: weights of this format are multiplied in f32.
int digits_of(const GroupFormat& format, DType a);

// Whether a product of groups, of which plan::MatMul has some, multiplies digits.
bool group_multiplies_digits(const plan::Program& program, const plan::MatMul& matmul);

// Bytes of a row in digits.
int64_t digit_row_bytes(const GroupFormat& format, int digits);

// Writes a row of format.padded() f32, one after another, to `to`.
void stage_digits(Emitter& emitter, const GroupFormat& format, int digits, llvm::Value* row,
                  llvm::Value* to);

// i1: whether fixed point holds the row that stage_digits() wrote.
llvm::Value* holds_digits(Emitter& emitter, llvm::Value* staged);

// Vectors of the tile: all of a panel.
int digit_vectors(const Target& target);

// The sums of a panel over all of k, of a row that digits hold.
Accumulators multiply_digits(Emitter& emitter, const GroupFormat& format, int digits,
                             llvm::Value* staged, const GroupColumns& columns);

}  // namespace kiln::cpu
