// Operators whose results have sizes that depend on data. Each counts its elements, gives the count to the
// symbol that torch.export recorded for the size (an unbacked one), and then writes them to where they belong.
#include <algorithm>

#include "import/ops/common.h"
#include "import/repeat.h"

namespace kiln::import {
namespace {

using ir::Dim;

Value* flat(Call& call, Value* x) { return call.builder().reshape(x, {x->type.elements()}); }

Value* filled(Call& call, const Dim& size, double value) {
  return call.make(Op::full, {},
                   {{"shape", ir::Shape{size}}, {"dtype", DType::I64}, {"value", value}});
}

Value* running_sum(Call& call, Value* x) {
  return call.make(Op::cumsum, {x}, {{"axis", int64_t{0}}});
}

// `source` at the places that `index` says, of `size` in all; places outside of them are left out.
Value* scatter_to(Call& call, const Dim& size, Value* index, Value* source, const char* combine) {
  return call.make(Op::scatter, {filled(call, size, 0), index, source},
                   {{"axis", int64_t{0}}, {"combine", std::string(combine)}});
}

// What the elements of a mask that are true have to do with those before them.
struct Selection {
  Value* upto = nullptr;  // i64[n]: how many are true up to here, this one included
  Dim count;

  // i64[count]: where they are, the first first.
  Value* places(Call& call, Value* mask) const {
    const Expr number(call, upto);
    const Expr place = Expr(call, mask).select(number - 1, number.constant(-1));
    return scatter_to(call, count, place, iota(call, mask->type.shape[0]), "replace");
  }
};

// `output` and `dim` have the size that PyTorch recorded.
Selection select(Call& call, Value* mask, size_t output, size_t dim) {
  Value* ones = call.builder().cast(mask, DType::I64);
  Value* count = reduce(call, Op::reduce_sum, ones, {0}, false);
  Selection selection;
  selection.upto = running_sum(call, ones);
  selection.count = call.find_size(count, output, dim, mask->type.shape[0]);
  return selection;
}

Value* places_of(Call& call, Value* mask, size_t output, size_t dim) {
  return select(call, mask, output, dim).places(call, mask);
}

// The position along each axis of a shape that places in its row-major order have.
std::vector<Value*> coordinates(Call& call, Value* places, const ir::Shape& shape) {
  std::vector<Value*> result(shape.size());
  Expr rest(call, places);
  for (size_t axis = shape.size(); axis-- > 0;) {
    if (axis == 0) {
      result[axis] = rest;
      break;
    }
    const Expr size(call,
                    call.make(Op::dim_value, {}, {{"value", shape[axis]}, {"dtype", DType::I64}}));
    result[axis] = rest.apply(Op::remainder, size);
    rest = rest / size;
  }
  return result;
}

Value* places_as_rows(Call& call, Value* x) {
  const ir::Shape shape = x->type.shape;
  // The place of a scalar has no coordinates: a size that depends on data, and no elements.
  if (shape.empty()) {
    const Selection selection = select(call, flat(call, x), 0, 0);
    return call.make(
        Op::full, {},
        {{"shape", ir::Shape{selection.count, 0}}, {"dtype", DType::I64}, {"value", 0.0}});
  }
  Value* places = places_of(call, flat(call, x), 0, 0);
  std::vector<Value*> columns;
  for (Value* column : coordinates(call, places, shape))
    columns.push_back(unsqueeze(call, column, 1));
  return columns.size() == 1 ? columns[0] : call.make(Op::concat, columns, {{"axis", int64_t{1}}});
}

Value* import_nonzero(Call& call) {
  return places_as_rows(call, call.builder().cast(call.tensor("self"), DType::Bool));
}

// The first ones, and `fill_value` where there are fewer.
Value* import_nonzero_static(Call& call) {
  Value* x = call.builder().cast(call.tensor("self"), DType::Bool);
  const ir::Shape shape = x->type.shape;
  const Dim size = call.dim("size");
  Value* mask = flat(call, x);
  const Expr number(call, running_sum(call, call.builder().cast(mask, DType::I64)));
  const Expr place = Expr(call, mask).select(number - 1, number.constant(-1));
  Value* places =
      call.make(Op::scatter, {filled(call, size, -1), place, iota(call, mask->type.shape[0])},
                {{"axis", int64_t{0}}, {"combine", std::string("replace")}});
  const Expr known(call, places);
  std::vector<Value*> columns;
  for (Value* column : coordinates(call, known.apply(Op::maximum, 0), shape)) {
    const Expr fill = known.constant(static_cast<double>(call.integer_or("fill_value", -1)));
    const Expr filled = known.apply(Op::lt, 0).select(fill, {call, column});
    columns.push_back(unsqueeze(call, filled, 1));
  }
  if (columns.empty())
    return call.make(Op::full, {},
                     {{"shape", ir::Shape{size, 0}}, {"dtype", DType::I64}, {"value", 0.0}});
  return columns.size() == 1 ? columns[0] : call.make(Op::concat, columns, {{"axis", int64_t{1}}});
}

std::vector<Value*> import_nonzero_numpy(Call& call) {
  const char* name = call.has("condition") ? "condition" : "self";
  Value* x = call.builder().cast(call.tensor(name), DType::Bool);
  const ir::Shape shape = x->type.shape.empty() ? ir::Shape{1} : x->type.shape;
  return coordinates(call, places_of(call, flat(call, x), 0, 0), shape);
}

Value* import_masked_select(Call& call) {
  Value *x = call.tensor("self"), *mask = call.tensor("mask");
  const ir::Shape shape = ir::broadcast_shapes(x->type.shape, mask->type.shape);
  x = flat(call, call.builder().expand(x, shape));
  mask = flat(call, call.builder().expand(mask, shape));
  return call.make(Op::gather, {x, places_of(call, mask, 0, 0)}, {{"axis", int64_t{0}}});
}

// --- Unique elements ---

// What is known of elements, or of rows, in groups of neighbours that are equal: which of them begin one.
struct Groups {
  Value* x;  // rank 1; rows: rank 2
  Value* begins;
  Selection selection;
  Value* first;  // where each group begins

  // `output` and `dim` have the number of groups.
  Groups(Call& call, Value* elements, size_t output, size_t dim = 0) : x(elements) {
    const Expr position(call, iota(call, x->type.shape[0]));
    Value* before =
        call.make(Op::gather, {x, (position - 1).apply(Op::maximum, 0)}, {{"axis", int64_t{0}}});
    Value* differs = call.make(Op::ne, {x, before});
    if (x->type.rank() == 2) differs = reduce(call, Op::reduce_max, differs, {1}, false);
    begins = Expr(call, differs).apply(Op::bitwise_or, position.apply(Op::eq, 0));
    selection = select(call, begins, output, dim);
    first = selection.places(call, begins);
  }

  Value* values(Call& call) const {
    return call.make(Op::gather, {x, first}, {{"axis", int64_t{0}}});
  }
  // Of every element, its group.
  Value* numbers(Call& call) const { return Expr(call, selection.upto) - 1; }
  Value* sizes(Call& call) const {
    Value* end = call.make(Op::dim_value, {}, {{"value", x->type.shape[0]}, {"dtype", DType::I64}});
    Value* bounds =
        call.make(Op::concat, {first, call.builder().reshape(end, {1})}, {{"axis", int64_t{0}}});
    const Expr next(call, slice(call, bounds, 0, 1, selection.count));
    return next - Expr(call, slice(call, bounds, 0, 0, selection.count));
  }
};

// Sorted whether or not that is asked for, as PyTorch has them on a CPU.
std::vector<Value*> import_unique(Call& call) {
  Value* x = call.tensor("self");
  UniqueElements found = unique_elements(call, x);
  found.inverse = call.builder().reshape(found.inverse, x->type.shape);
  return {found.values, call.boolean_or("return_inverse", false) ? found.inverse : nullptr,
          call.boolean_or("return_counts", false) ? found.counts : nullptr};
}

// --- Unique rows ---

// A tensor as rows along an axis.
struct RowsOf {
  Value* matrix;  // [rows, elements of one]
  ir::Shape rest;
  int64_t axis;

  RowsOf(Call& call, Value* x, int64_t along) : axis(along) {
    x = move_axis(call, x, axis, 0);
    rest.assign(x->type.shape.begin() + 1, x->type.shape.end());
    matrix = call.builder().reshape(x, {x->type.shape[0], ir::product(rest)});
  }
  // Some rows as what they were.
  Value* restored(Call& call, Value* rows) const {
    ir::Shape shape = rest;
    shape.insert(shape.begin(), rows->type.shape[0]);
    return move_axis(call, call.builder().reshape(rows, shape), 0, axis);
  }
};

// The order of rows by their first elements, of equal ones by the second, and so on: sorted by the last elements
// first, since a sort keeps the order of equals.
Value* order_of_rows(Call& call, Value* matrix) {
  const Dim count = matrix->type.shape[0], columns = matrix->type.shape[1];
  if (matrix->type.dtype == DType::Bool) matrix = call.builder().cast(matrix, DType::U8);
  const auto size = [&](Call& at) {
    return at.make(Op::dim_value, {}, {{"value", columns}, {"dtype", DType::I64}});
  };
  Repeat repeat(call.builder());
  const std::vector<Value*> carried = repeat.carry({size(call), iota(call, count)});
  Value* x = repeat.use(matrix);
  Call inner(call, repeat.builder());
  const Expr column = Expr(inner, carried[0]) - 1;
  Value* key =
      inner.make(Op::gather, {x, inner.builder().reshape(column, {1})}, {{"axis", int64_t{1}}});
  key = inner.make(Op::gather, {inner.builder().reshape(key, {count}), carried[1]},
                   {{"axis", int64_t{0}}});
  Value* places = inner.make(Op::argsort, {key},
                             {{"axis", int64_t{0}}, {"descending", false}, {"count", count}});
  Value* order = inner.make(Op::gather, {carried[1], places}, {{"axis", int64_t{0}}});
  const Expr any = Expr(call, size(call)).apply(Op::gt, 0);
  return repeat.finish(any, column.apply(Op::gt, 0), {column, order})[1];
}

std::vector<Value*> import_unique_rows(Call& call) {
  Value* x = call.tensor("self");
  const RowsOf rows(call, x, call.axis("dim", x->type.rank()));
  Value* order = order_of_rows(call, rows.matrix);
  Value* sorted = call.make(Op::gather, {rows.matrix, order}, {{"axis", int64_t{0}}});
  const Groups groups(call, sorted, 0, static_cast<size_t>(rows.axis));
  Value *inverse = nullptr, *counts = nullptr;
  if (call.boolean_or("return_inverse", false))
    inverse = scatter_to(call, rows.matrix->type.shape[0], order, groups.numbers(call), "replace");
  if (call.boolean_or("return_counts", false)) counts = groups.sizes(call);
  return {rows.restored(call, groups.values(call)), inverse, counts};
}

std::vector<Value*> import_unique_consecutive_rows(Call& call) {
  Value* x = call.tensor("self");
  const RowsOf rows(call, x, call.axis("dim", x->type.rank()));
  const Groups groups(call, rows.matrix, 0, static_cast<size_t>(rows.axis));
  return {rows.restored(call, groups.values(call)), groups.numbers(call), groups.sizes(call)};
}

std::vector<Value*> import_unique_consecutive(Call& call) {
  if (call.has("dim")) return import_unique_consecutive_rows(call);
  Value* x = call.tensor("self");
  const Groups groups(call, flat(call, x), 0);
  Value *inverse = nullptr, *counts = nullptr;
  if (call.boolean_or("return_inverse", false))
    inverse = call.builder().reshape(groups.numbers(call), x->type.shape);
  if (call.boolean_or("return_counts", false)) counts = groups.sizes(call);
  return {groups.values(call), inverse, counts};
}

// Element i of the result is how many elements end in front of i or with it: ones are added where each
// ends, and summed up.
Value* repeated_places(Call& call, Value* repeats, size_t dim) {
  constexpr int64_t kMostRepeats = int64_t{1} << 46;
  repeats = checked_index(call, repeats, kMostRepeats, false, "repeat_interleave");
  Value* total = reduce(call, Op::reduce_sum, repeats, {0}, false);
  Value* ends = running_sum(call, repeats);
  const Dim size = call.find_size(total, 0, dim, std::nullopt);
  Value* one = call.builder().expand(call.builder().scalar(DType::I64, 1), ends->type.shape);
  return running_sum(call, scatter_to(call, size, ends, one, "sum"));
}

Value* import_repeat_interleave(Call& call) {
  Value* repeats = call.tensor("repeats");
  call.expect(repeats->type.rank() == 1, "repeats of rank " + std::to_string(repeats->type.rank()),
              "rank 1");
  return repeated_places(call, repeats, 0);
}

// One number of repeats may stand for all elements along the axis.
Value* import_repeat_interleave_along(Call& call) {
  Value *x = call.tensor("self"), *repeats = call.tensor("repeats");
  if (!call.has("dim")) x = flat(call, x);
  const int64_t axis = call.has("dim") ? call.axis("dim", x->type.rank()) : 0;
  const Dim size = x->type.shape[static_cast<size_t>(axis)];
  call.expect(repeats->type.rank() <= 1, "repeats of rank " + std::to_string(repeats->type.rank()),
              "rank 0 or 1");
  if (repeats->type.elements().is_constant(1))
    repeats = call.builder().expand(call.builder().reshape(repeats, {1}), {size});
  call.expect(ir::provably_equal(repeats->type.shape[0], size),
              "repeats for " + repeats->type.shape[0].str() + " elements", size.str());
  Value* places = repeated_places(call, repeats, static_cast<size_t>(axis));
  return call.make(Op::gather, {x, places}, {{"axis", axis}});
}

constexpr Row kRows[] = {
    {"aten.argwhere.default", import_nonzero},
    {"aten.nonzero.default", import_nonzero},
    {"aten.nonzero_numpy.default", import_nonzero_numpy},
    {"aten.where.default", import_nonzero_numpy},
    {"aten.nonzero_static.default", import_nonzero_static},
    {"aten.masked_select.default", import_masked_select},
    {"aten._unique2.default", import_unique},
    {"aten.unique_dim.default", import_unique_rows},
    {"aten.unique_consecutive.default", import_unique_consecutive},
    {"aten.repeat_interleave.Tensor", import_repeat_interleave},
    {"aten.repeat_interleave.self_Tensor", import_repeat_interleave_along},
};

}  // namespace

Value* selected_places(Call& call, Value* mask, size_t dim) {
  return places_of(call, flat(call, mask), 0, dim);
}

std::vector<Value*> nonzero_of(Call& call, Value* mask) { return {places_as_rows(call, mask)}; }

UniqueElements unique_elements(Call& call, Value* x) {
  x = flat(call, x);
  const Dim size = x->type.shape[0];
  Value* key = x->type.dtype == DType::Bool ? call.builder().cast(x, DType::U8) : x;
  Value* order =
      call.make(Op::argsort, {key}, {{"axis", int64_t{0}}, {"descending", false}, {"count", size}});
  const Groups groups(call, call.make(Op::gather, {x, order}, {{"axis", int64_t{0}}}), 0);
  return {groups.values(call), call.make(Op::gather, {order, groups.first}, {{"axis", int64_t{0}}}),
          scatter_to(call, size, order, groups.numbers(call), "replace"), groups.sizes(call)};
}

std::vector<Value*> positions_of(Call& call, Value* places, const ir::Shape& shape) {
  return coordinates(call, places, shape);
}

Rows data_size_rows() { return kRows; }

}  // namespace kiln::import
