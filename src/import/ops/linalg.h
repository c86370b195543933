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
// Of any matrices of known sides, the shorter of which is at most kMostRows.
struct Sides {
  int64_t rows, columns, steps;
};
Sides sides_of(Call& call, const Value* x);
// Of square matrices, at most kMostRows.
int64_t rows_of(Call& call, const Value* x);
Value* row(Call& call, Value* x, int64_t i);
Value* column(Call& call, Value* x, int64_t i);
Value* transposed(Call& call, Value* x);
// 0, 1, .. as a column.
Expr row_numbers(Call& call, int64_t n);
// Without its last two axes, which are of size 1.
Value* scalars(Call& call, Value* x);
Value* identity_like(Call& call, Value* a);
// i32: the number of the first pivot, from 1, for which the test fails; 0 if none.
Value* first_failure(Call& call, const Expr& fails);

// The axes in front of matrices; a shape with more axes behind it.
ir::Shape leading(const Value* x);
ir::Shape with(ir::Shape shape, std::initializer_list<int64_t> sizes);
Value* filled(Call& call, DType dtype, const ir::Shape& shape, double value);
Value* joined(Call& call, const std::vector<Value*>& parts, int64_t axis);
// An empty result, which stands for what was not asked for.
Value* nothing(Call& call, DType dtype);
// 1 on the diagonal and 0 elsewhere, [.., rows, columns], f64.
Value* rectangle(Call& call, const ir::Shape& front, int64_t rows, int64_t columns);
// [.., 1] or [.., 1, 1] of a number for each matrix.
Expr for_matrices(Call& call, Value* numbers, int axes);

struct Elimination {
  Value* right;   // what is left of the right-hand sides: the solution
  Value* pivots;  // [.., n]
  Value* is_odd;  // bool [..]: whether an odd number of rows was swapped
};
// Gauss and Jordan: rows are swapped so that the largest element of a column divides.
Elimination eliminate(Call& call, Value* a, Value* right);

// a x = b, for a triangle of a alone.
Value* substitute(Call& call, Value* a, Value* b, bool upper, bool unit);
// `count` columns of length 1 at right angles: those of x, which are so or zeros, with others in place of zeros and behind.
Value* orthonormal_columns(Call& call, Value* x, int64_t count);
// Both with the leading axes that they broadcast to.
void broadcast_matrices(Call& call, Value*& a, Value*& b);

}  // namespace kiln::import
