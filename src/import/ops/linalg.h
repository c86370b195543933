// What factorisations and solutions with small matrices share. All is computed in f64, whose digits make up for those that
// elimination loses; each column is a step, so that their number is known and small.
#pragma once

#include "import/ops/common.h"

namespace kiln::import {

constexpr int64_t kMostRows = 32;

int64_t rank_of(const Value* x);
DType dtype_of(Call& call, std::string_view name);
// A matrix, or many: [.., rows, columns], as f64. Results are rounded to the operand's dtype in the end.
Value* wide_matrix(Call& call, std::string_view name);
// Of square matrices, at most kMostRows.
int64_t rows_of(Call& call, const Value* x);
Value* row(Call& call, Value* x, int64_t i);
Value* column(Call& call, Value* x, int64_t i);
Value* transposed(Call& call, Value* x);
// 0, 1, .. as a column.
Expr row_numbers(Call& call, int64_t n);
// Without its last two axes, which are of size 1.
Value* scalars(Call& call, Value* x);
// Ends the run where a condition is false: PyTorch raises for a matrix that the operator has no result for.
void check_all(Call& call, Value* condition);
Value* identity_like(Call& call, Value* a);
// i32: the number of the first pivot, from 1, for which the test fails; 0 if none.
Value* first_failure(Call& call, const Expr& fails);

struct Elimination {
  Value* right;   // what is left of the right-hand sides: the solution
  Value* pivots;  // [.., n]
  Value* is_odd;  // bool [..]: whether an odd number of rows was swapped
};
// Gauss and Jordan: rows are swapped so that the largest element of a column divides.
Elimination eliminate(Call& call, Value* a, Value* right);

// a x = b, for a triangle of a alone.
Value* substitute(Call& call, Value* a, Value* b, bool upper, bool unit);
// Both with the leading axes that they broadcast to.
void broadcast_matrices(Call& call, Value*& a, Value*& b);

}  // namespace kiln::import
