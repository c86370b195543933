// Writing elements that a mask selects: the k-th that is selected takes the k-th value. How many there are depends on data,
// but nothing in the result has that size.
#include "import/ops/masked.h"

#include <algorithm>

namespace kiln::import {
namespace {

using ir::Dim;

// x along an axis with one element more, so that there is one to read where there may be none.
Value* with_one_more(Call& call, Value* x, int64_t axis) {
  if (x->type.shape[static_cast<size_t>(axis)].lower_bound() > 0) return x;
  std::vector<Dim> before(x->type.rank(), 0), after(x->type.rank(), 0);
  after[static_cast<size_t>(axis)] = 1;
  return pad_constant(call, x, before, after);
}

// i64[n]: how many of a mask, bool[n], are true up to each, this one included.
Expr running_count(Call& call, Value* mask) {
  return {call,
          call.make(Op::cumsum, {call.builder().cast(mask, DType::I64)}, {{"axis", int64_t{0}}})};
}

Value* count_of(Call& call, Value* mask) {
  return reduce(call, Op::reduce_sum, call.builder().cast(mask, DType::I64), {0}, false);
}

Expr size_of(Call& call, const Dim& size) {
  return {call, call.make(Op::dim_value, {}, {{"value", size}, {"dtype", DType::I64}})};
}

// The k-th true of the mask takes the k-th element of the source.
Value* import_masked_scatter(Call& call) {
  Value *x = call.tensor("self"), *mask = call.tensor("mask"), *source = call.tensor("source");
  const ir::Shape shape = ir::broadcast_shapes(x->type.shape, mask->type.shape);
  mask = call.builder().reshape(call.builder().expand(mask, shape), {ir::product(shape)});
  const Expr chosen(call, mask), count = running_count(call, mask);
  const Dim size = source->type.elements();
  source = call.builder().reshape(source, {size});
  require_data(call, Expr(call, count_of(call, mask)).apply(Op::le, size_of(call, size)),
               "got a mask that selects more elements than the source has, expected an element for "
               "each");
  const Expr last = (size_of(call, size) - 1).apply(Op::maximum, 0);
  const Expr index = chosen.select(count - 1, count.constant(0)).apply(Op::minimum, last);
  Value* taken =
      call.make(Op::gather, {with_one_more(call, source, 0), index}, {{"axis", int64_t{0}}});
  const Expr flat(call,
                  call.builder().reshape(call.builder().expand(x, shape), {ir::product(shape)}));
  return call.builder().reshape(chosen.select({call, taken}, flat), shape);
}

constexpr Row kRows[] = {
    {"aten.masked_scatter.default", import_masked_scatter},
};

}  // namespace

Value* spread_values(Call& call, Value* mask, Value* values, int64_t axis) {
  if (axis < 0 || values->type.shape[static_cast<size_t>(axis)].is_constant(1)) return values;
  const Expr given = size_of(call, values->type.shape[static_cast<size_t>(axis)]);
  const Expr fits = Expr(call, count_of(call, mask))
                        .apply(Op::eq, given)
                        .apply(Op::bitwise_or, given.apply(Op::eq, 1));
  require_data(call, fits,
               "got a mask that selects another number of elements than there are values, expected "
               "one value for each, or one for all",
               "index_put");
  // Those that are not selected read any: an element that is there.
  const Expr number =
      (running_count(call, mask) - 1).apply(Op::minimum, given - 1).apply(Op::maximum, 0);
  return call.make(Op::gather, {with_one_more(call, values, axis), number}, {{"axis", axis}});
}

Value* put_masked(Call& call, Value* x, const MaskIndex& index, Value* values, bool accumulate) {
  const ir::Shape shape = x->type.shape;
  const auto at = shape.begin() + static_cast<std::ptrdiff_t>(index.axis);
  const auto behind = at + static_cast<std::ptrdiff_t>(index.mask->type.rank());
  ir::Shape merged(shape.begin(), at);  // the axes that the mask stands for as one
  merged.push_back(index.mask->type.elements());
  merged.insert(merged.end(), behind, shape.end());
  Value* mask = call.builder().reshape(index.mask, {index.mask->type.elements()});
  // Values have an axis of their own for what is selected, in front of those behind it; or fewer axes.
  const auto axis = static_cast<int64_t>(values->type.rank()) - 1 - (shape.end() - behind);
  values = spread_values(call, mask, values, axis);
  ir::Shape along(static_cast<size_t>(shape.end() - behind) + 1, Dim(1));
  along[0] = mask->type.shape[0];
  const Expr selected(call, call.builder().reshape(mask, along));
  const Expr self(call, call.builder().reshape(x, merged)), written(call, values);
  const Expr result = selected.select(accumulate ? self + written : written, self);
  return call.builder().reshape(result, shape);
}

Rows masked_rows() { return kRows; }

}  // namespace kiln::import
