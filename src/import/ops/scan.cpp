// Running sums, products and extremes along an axis.
#include "import/ops/common.h"

namespace kiln::import {
namespace {

Value* scan(Call& call, Op op, Value* x, int64_t axis) {
  return x->type.rank() == 0 ? x : call.make(op, {x}, {{"axis", axis}});
}

// Sums and products of integers and bools are i64, unless the call names a dtype.
template <Op op>
Value* import_sum_or_product(Call& call) {
  Value* x = call.tensor("self");
  const DType natural = is_floating(x->type.dtype) ? x->type.dtype : DType::I64;
  x = call.builder().cast(x, call.dtype("dtype").value_or(natural));
  return scan(call, op, x, call.axis("dim", x->type.rank()));
}

// Positions along the axis, with the rank of x.
Value* positions(Call& call, Value* x, int64_t axis) {
  ir::Shape shape(x->type.rank(), ir::Dim(1));
  shape[axis] = x->type.shape[axis];
  return call.builder().reshape(iota(call, x->type.shape[axis]), shape);
}

// The extreme so far, and the last place where it was reached. NaN is beyond every number.
template <Op op>
std::vector<Value*> import_extreme(Call& call) {
  Value* x = call.tensor("self");
  const DType dtype = x->type.dtype;
  if (dtype == DType::Bool) x = call.builder().cast(x, DType::I32);
  const int64_t axis = call.axis("dim", x->type.rank());
  Value* extreme = scan(call, op, x, axis);
  Value* result = call.builder().cast(extreme, dtype);
  if (!call.output_used(1)) return {result, nullptr};
  if (x->type.rank() == 0) return {result, call.builder().scalar(DType::I64, 0)};
  Expr reached(call, call.make(op == Op::cummax ? Op::ge : Op::le, {x, extreme}));
  if (is_floating(dtype)) reached = reached.apply(Op::bitwise_or, Expr(call, x).apply(Op::isnan));
  const Expr place(call, positions(call, x, axis));
  return {result, scan(call, Op::cummax, reached.select(place, place.constant(0)), axis)};
}

// log(sum of e^x up to here) = m + log(sum of e^(x - m)), with m the largest so far: a sum for every element, because m
// changes along the axis.
Value* import_logcumsumexp(Call& call) {
  const Expr self = floating(call, "self");
  const DType dtype = self.value()->type.dtype;
  Value* wide = call.builder().cast(self, compute_dtype(dtype));
  if (wide->type.rank() == 0) return self;
  const int64_t rank = static_cast<int64_t>(wide->type.rank());
  const int64_t axis = call.axis("dim", wide->type.rank());
  const ir::Dim size = wide->type.shape[axis];
  expect_work(call, {size}, 1024);
  const Expr x(call, move_axis(call, wide, axis, rank - 1));
  const Expr largest(call, scan(call, Op::cummax, x, rank - 1));
  const Expr offset = largest.apply(Op::isinf).select(largest.constant(0), largest);
  const Expr here(call, unsqueeze(call, offset, rank));
  const Expr terms = (Expr(call, unsqueeze(call, x, rank - 1)) - here).apply(Op::exp);
  const Expr counts(call,
                    call.make(Op::le, {iota(call, size), unsqueeze(call, iota(call, size), 1)}));
  const Expr sum(
      call, reduce(call, Op::reduce_sum, counts.select(terms, terms.constant(0)), {rank}, false));
  const Expr result = sum.apply(Op::log) + offset;
  return call.builder().cast(move_axis(call, result, rank - 1, axis), dtype);
}

constexpr Row kRows[] = {
    {"aten.cumsum.default", import_sum_or_product<Op::cumsum>},
    {"aten.cumprod.default", import_sum_or_product<Op::cumprod>},
    {"aten.cummax.default", import_extreme<Op::cummax>},
    {"aten.cummin.default", import_extreme<Op::cummin>},
    {"aten.logcumsumexp.default", import_logcumsumexp},
};

}  // namespace

Rows scan_rows() { return kRows; }

}  // namespace kiln::import
