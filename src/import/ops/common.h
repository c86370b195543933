// What the op families share.
#pragma once

#include <initializer_list>
#include <vector>

#include "import/registry.h"

namespace kiln::import {

using ir::Op;
using ir::Value;

// Arithmetic on values, for ops that are composed of others. A number becomes a constant of the
// other operand's dtype.
class Expr {
 public:
  Expr(const Call& call, Value* value) : call_(&call), value_(value) {}

  Value* value() const { return value_; }
  operator Value*() const { return value_; }

  Expr apply(Op op) const { return {*call_, call_->make(op, {value_})}; }
  Expr apply(Op op, const Expr& other) const {
    return {*call_, call_->make(op, {value_, other.value_})};
  }
  Expr apply(Op op, double other) const { return apply(op, constant(other)); }
  Expr constant(double value) const { return {*call_, call_->constant_like(value_, value)}; }

  friend Expr operator+(const Expr& a, const Expr& b) { return a.apply(Op::add, b); }
  friend Expr operator-(const Expr& a, const Expr& b) { return a.apply(Op::sub, b); }
  friend Expr operator*(const Expr& a, const Expr& b) { return a.apply(Op::mul, b); }
  friend Expr operator/(const Expr& a, const Expr& b) { return a.apply(Op::div, b); }
  friend Expr operator+(const Expr& a, double b) { return a.apply(Op::add, b); }
  friend Expr operator-(const Expr& a, double b) { return a.apply(Op::sub, b); }
  friend Expr operator*(const Expr& a, double b) { return a.apply(Op::mul, b); }
  friend Expr operator/(const Expr& a, double b) { return a.apply(Op::div, b); }
  friend Expr operator-(double a, const Expr& b) { return b.constant(a) - b; }
  friend Expr operator-(const Expr& a) { return a.apply(Op::neg); }

  // this (bool) ? a : b
  Expr select(const Expr& a, const Expr& b) const {
    return {*call_, call_->make(Op::where, {value_, a.value_, b.value_})};
  }

 private:
  const Call* call_;
  Value* value_;
};

// The argument `name` as an Expr in a floating dtype: integers become f32.
Expr floating(Call& call, std::string_view name);
// What half precision is computed in by an operator that takes more than one step: f32.
DType compute_dtype(DType dtype);

// A mask as attention takes it: of bool or of the dtype of the query as it is, others in the dtype that attention computes in, because
// 16 bits have no numbers as low as models write there.
Value* mask_for(Call& call, Value* mask, DType query);
// A function of one floating operand, `self`, composed of several ops: half precision is computed
// in f32, as PyTorch does.
using Composition = Expr (*)(Call& call, const Expr& x);
template <Composition function>
Value* composed(Call& call) {
  const Expr x = floating(call, "self");
  const DType dtype = x.value()->type.dtype;
  const Expr wide(call, call.builder().cast(x, compute_dtype(dtype)));
  return call.builder().cast(function(call, wide), dtype);
}
// The same, computed in f64: for formulas in which f32 would lose digits.
template <Composition function>
Value* composed_in_f64(Call& call) {
  const Expr x = floating(call, "self");
  const Expr wide(call, call.builder().cast(x, DType::F64));
  return call.builder().cast(function(call, wide), x.value()->type.dtype);
}
// An importer whose 16-bit operands are computed with as f32: see Call::compute_in_f32.
template <ImportOne function>
Value* in_f32(Call& call) {
  call.compute_in_f32();
  return function(call);
}
Value* cast_if(Call& call, Value* x, std::optional<DType> dtype);
std::vector<int64_t> range(int64_t begin, int64_t end);
// x with the axis at `from` moved to `to`.
Value* move_axis(Call& call, Value* x, int64_t from, int64_t to);
// A slice with step 1.
Value* slice(Call& call, Value* x, int64_t axis, ir::Dim start, ir::Dim size);
Value* reduce(Call& call, Op op, Value* x, std::vector<int64_t> axes, bool keepdim);
// PyTorch raises where there is nothing to take the extreme of: an IndexError, or a RuntimeError.
void require_elements(Call& call, const Value* x, const std::vector<int64_t>& axes,
                      ir::Requirement::Kind kind);
// Ends calls whose sizes make `part` larger than `whole` along an axis.
void require_part(Call& call, const Value* part, const Value* whole, int64_t axis);
// Of absolute values along axes; order 0 counts those that are not 0.
Expr vector_norm(Call& call, const Expr& magnitude, double order, const std::vector<int64_t>& axes,
                 bool keepdim);
Value* unsqueeze(Call& call, Value* x, int64_t axis);
// A product of matrices, or of batches of them; of integers too.
Value* matmul(Call& call, Value* a, Value* b);
// 0, 1, ... size - 1.
Value* iota(Call& call, const ir::Dim& size, DType dtype = DType::I64);
// i64[n]: these numbers.
Value* index_constant(Call& call, const std::vector<int64_t>& numbers);
// x with `value` around it: so many in front of each axis and behind it. A negative size crops.
Value* pad_constant(Call& call, Value* x, const std::vector<ir::Dim>& before,
                    const std::vector<ir::Dim>& after, double value = 0);
// Integers as i64.
Value* as_index(Call& call, Value* index);
// For indices in brackets, `x[index]`.
void refuse_byte_mask(Call& call, const Value* index);
// PyTorch takes an index of another rank than what it is for, `rank`, if it is empty, and nothing else.
void expect_empty(const Call& call, const Value* index, size_t rank);
// The index as i64, which ends the run where it is outside [0, size), or [-size, size) if negative.
Value* checked_index(Call& call, Value* index, const ir::Dim& size, bool negative,
                     std::string_view name);
// Ends the run where a condition, bool, is not true everywhere: PyTorch raises for such data. `fault` is what the error says
// behind the operator, "got X, expected Y".
void require_data(Call& call, Value* condition, std::string_view fault, std::string_view name = {});
// Where the true elements of a mask are in its row-major order: i64[count], whose size depends on data. `dim` of the
// node's first output has the size that PyTorch recorded.
Value* selected_places(Call& call, Value* mask, size_t dim);
// The same as the rows of a matrix, with the index along each axis of the mask: the results of nonzero.
std::vector<Value*> nonzero_of(Call& call, Value* mask);
// The different elements of x, sorted, NaN each for itself; where each is first, row-major; of every element of x,
// which of them it is, rank 1; and how many there are of each.
struct UniqueElements {
  Value *values, *first, *inverse, *counts;
};
UniqueElements unique_elements(Call& call, Value* x);
// The index along each axis of a shape that such places have.
std::vector<Value*> positions_of(Call& call, Value* places, const ir::Shape& shape);
// For compositions that compare everything with everything: CompileError where the product of the largest sizes
// exceeds `limit`, above which other ways are faster.
void expect_work(Call& call, std::initializer_list<ir::Dim> sizes, int64_t limit);
// "[2, 3]", for messages.
std::string shape_text(const ir::Shape& shape);
// A list argument such as stride or padding: one value stands for all axes, none for the fallback.
std::vector<int64_t> per_axis(Call& call, std::string_view name, size_t count, int64_t fallback);
std::vector<int64_t> per_axis(Call& call, std::vector<int64_t> values, size_t count);

}  // namespace kiln::import
