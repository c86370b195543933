// Sorting, what takes some of the sorted elements, and searching in sorted ones.
//
// Long axes are sorted by argsort. On short ones (experts, classes, boxes) an element's place in the sorted order is the
// number of elements that come before it, and the index at a place is that of the element with this place: sums over all
// elements, whose work is the square of the size, and which fuse with what is around them.
#include <algorithm>
#include <bit>

#include "import/ops/sort.h"

namespace kiln::import {
namespace {

constexpr int64_t kMostCompared = 128;

// u < v, with NaN beyond every number.
Expr less(const Expr& u, const Expr& v) {
  const Expr smaller = u.apply(Op::lt, v);
  if (!is_floating(u.value()->type.dtype)) return smaller;
  const Expr is_number = u.apply(Op::isnan).apply(Op::logical_not);
  return smaller.apply(Op::bitwise_or, v.apply(Op::isnan).apply(Op::bitwise_and, is_number));
}

// A tensor that is sorted along its last axis.
struct Sorted {
  Call& call;
  Value* x;  // with the axis last
  bool descending;
  int64_t axis;   // where it is in the operand and the result
  Value* places;  // i32: of each element; null where it is long

  int64_t last() const { return static_cast<int64_t>(x->type.rank()) - 1; }
  const ir::Dim& size() const { return x->type.shape.back(); }

  // i64 indices of the elements that have the first places.
  Value* first(const ir::Dim& count) const {
    if (places != nullptr) return compare(iota(call, count, DType::I32));
    return call.make(Op::argsort, {x},
                     {{"axis", last()}, {"descending", descending}, {"count", count}});
  }

  // Those of the elements whose places are `wanted`: i32, broadcast to [..., count].
  Value* at(Value* wanted) const {
    if (places != nullptr) return compare(wanted);
    ir::Shape shape = x->type.shape;
    shape.back() = wanted->type.shape.back();
    wanted = call.builder().expand(call.builder().cast(wanted, DType::I64), shape);
    return call.make(Op::gather_elements, {first(size()), wanted}, {{"axis", last()}});
  }

  // Elements at indices, and the indices, with the axis where it belongs.
  std::vector<Value*> take(Value* index, DType dtype) const {
    Value* values = call.make(Op::gather_elements, {x, index}, {{"axis", last()}});
    values = call.builder().cast(values, dtype);
    return {move_axis(call, values, last(), axis), move_axis(call, index, last(), axis)};
  }

 private:
  Value* compare(Value* wanted) const {
    const Expr place(call, unsqueeze(call, places, last()));
    const Expr index(call, iota(call, size(), DType::I32));
    const Expr is_there = place.apply(
        Op::eq, {call, unsqueeze(call, wanted, static_cast<int64_t>(wanted->type.rank()))});
    Value* found = reduce(call, Op::reduce_sum, is_there.select(index, index.constant(0)),
                          {last() + 1}, false);
    return call.builder().cast(found, DType::I64);
  }
};

// The place of each element along the last axis: how many stand in front of it.
Value* count_places(Call& call, Value* x, bool descending) {
  const int64_t last = static_cast<int64_t>(x->type.rank()) - 1;
  const ir::Dim size = x->type.shape.back();
  const Expr element(call, unsqueeze(call, x, last + 1)), other(call, unsqueeze(call, x, last));
  const Expr earlier(call, call.make(Op::lt, {iota(call, size, DType::I32),
                                              unsqueeze(call, iota(call, size, DType::I32), 1)}));
  const Expr before = descending ? less(element, other) : less(other, element);
  const Expr behind = descending ? less(other, element) : less(element, other);
  // Equals keep their order.
  const Expr counts =
      before.apply(Op::bitwise_or, earlier.apply(Op::bitwise_and, behind.apply(Op::logical_not)));
  return reduce(call, Op::reduce_sum, call.builder().cast(counts, DType::I32), {last + 1}, false);
}

Sorted sort(Call& call, Value* x, int64_t axis, bool descending) {
  if (x->type.dtype == DType::Bool) x = call.builder().cast(x, DType::U8);
  x = move_axis(call, x, axis, static_cast<int64_t>(x->type.rank()) - 1);
  const bool is_short = x->type.shape.back().upper_bound() <= kMostCompared;
  return {call, x, descending, axis, is_short ? count_places(call, x, descending) : nullptr};
}

// A tensor of rank 0 is sorted, and so is one element along an axis.
std::vector<Value*> only_element(Call& call, Value* x) {
  Value* zero = call.builder().scalar(DType::I64, 0);
  return {x, call.builder().expand(zero, x->type.shape)};
}

std::vector<Value*> sort_axis(Call& call, Value* x, int64_t axis, bool descending) {
  if (x->type.rank() == 0 || x->type.shape[axis].is_constant(1)) return only_element(call, x);
  const Sorted sorted = sort(call, x, axis, descending);
  return sorted.take(sorted.first(sorted.size()), x->type.dtype);
}

std::vector<Value*> import_sort(Call& call) {
  Value* x = call.tensor("self");
  return sort_axis(call, x, call.axis_or("dim", x->type.rank(), -1),
                   call.boolean_or("descending", false));
}

Value* import_argsort(Call& call) { return import_sort(call)[1]; }

Value* import_msort(Call& call) { return sort_axis(call, call.tensor("self"), 0, false)[0]; }

std::vector<Value*> import_topk(Call& call) {
  Value* x = call.tensor("self");
  const ir::Dim count = call.dim("k");
  const int64_t axis = call.axis_or("dim", x->type.rank(), -1);
  const ir::Dim size = x->type.rank() == 0 ? ir::Dim(1) : x->type.shape[axis];
  call.expect(ir::provably_less_equal(count, size), "k = " + count.str(),
              "at most the size, " + size.str());
  if (x->type.rank() == 0) {
    call.expect(count.is_constant(1), "k = " + count.str() + " of a scalar", "1");
    return only_element(call, x);
  }
  const Sorted sorted = sort(call, x, axis, call.boolean_or("largest", true));
  return sorted.take(sorted.first(count), x->type.dtype);
}

// The elements at one place of each row.
std::vector<Value*> at_place(const Sorted& sorted, Value* place, DType dtype, bool keepdim) {
  std::vector<Value*> results = sorted.take(sorted.at(place), dtype);
  if (keepdim) return results;
  for (Value*& result : results) {
    ir::Shape shape = result->type.shape;
    shape.erase(shape.begin() + sorted.axis);
    result = sorted.call.builder().reshape(result, shape);
  }
  return results;
}

Value* place_of(Call& call, const ir::Dim& place) {
  Value* value = call.make(Op::dim_value, {}, {{"value", place}, {"dtype", DType::I32}});
  return call.builder().reshape(value, {1});
}

std::vector<Value*> import_kthvalue(Call& call) {
  Value* x = call.tensor("self");
  if (x->type.rank() == 0) return only_element(call, x);
  const ir::Dim k = call.dim("k");
  const int64_t axis = call.axis_or("dim", x->type.rank(), -1);
  const ir::Dim size = x->type.shape[axis];
  call.expect(ir::provably_less_equal(1, k) && ir::provably_less_equal(k, size), "k = " + k.str(),
              "1 to the size, " + size.str());
  const Sorted sorted = sort(call, x, axis, false);
  return at_place(sorted, place_of(call, k - 1), x->type.dtype, call.boolean_or("keepdim", false));
}

// The lower one of two in the middle. NaN, which is sorted to the end, counts if it is not `ignored`: then the first is the
// result.
std::vector<Value*> median(Call& call, Value* x, int64_t axis, bool ignores_nan, bool keepdim) {
  require_elements(call, x, {axis}, ir::Requirement::Kind::Index);
  const Sorted sorted = sort(call, x, axis, false);
  Value* middle = place_of(call, ir::floordiv(sorted.size() - 1, 2));
  if (!is_floating(x->type.dtype)) return at_place(sorted, middle, x->type.dtype, keepdim);
  const Expr number = Expr(call, sorted.x).apply(Op::isnan).apply(Op::logical_not);
  const Expr numbers(call, reduce(call, Op::reduce_sum, call.builder().cast(number, DType::I32),
                                  {sorted.last()}, true));
  Value* size = place_of(call, sorted.size());
  const Expr place = ignores_nan
                         ? Expr(call, (numbers - 1).apply(Op::maximum, 0)).apply(Op::floor_div, 2)
                         : numbers.apply(Op::eq, {call, size}).select({call, middle}, numbers);
  return at_place(sorted, place, x->type.dtype, keepdim);
}

template <bool ignores_nan>
std::vector<Value*> import_median_dim(Call& call) {
  Value* x = call.tensor("self");
  if (x->type.rank() == 0) return only_element(call, x);
  return median(call, x, call.axis("dim", x->type.rank()), ignores_nan,
                call.boolean_or("keepdim", false));
}

template <bool ignores_nan>
Value* import_median(Call& call) {
  Value* x = call.tensor("self");
  if (x->type.rank() == 0) return x;
  return median(call, call.builder().reshape(x, {x->type.elements()}), 0, ignores_nan, false)[0];
}

// The same by doubling: the greatest number of elements that all come before the value is found from its highest
// binary digit to its lowest.
Value* bisect(Call& call, Value* rows, const Expr& wanted, bool right) {
  const int64_t last = static_cast<int64_t>(rows->type.rank()) - 1;
  const ir::Dim size = rows->type.shape.back();
  const Expr length(call, call.make(Op::dim_value, {}, {{"value", size}, {"dtype", DType::I64}}));
  Value* zero = call.builder().scalar(DType::I64, 0);
  Expr count(call, call.builder().expand(zero, wanted.value()->type.shape));
  const auto most = static_cast<uint64_t>(std::min(size.upper_bound(), int64_t{1} << 40));
  for (uint64_t step = std::bit_floor(most); step > 0; step /= 2) {
    const Expr more = count + static_cast<double>(step);
    const Expr place = more.apply(Op::minimum, length) - 1;
    const Expr element(call, last == 0
                                 ? call.make(Op::gather, {rows, place}, {{"axis", last}})
                                 : call.make(Op::gather_elements, {rows, place}, {{"axis", last}}));
    const Expr before = element.apply(right ? Op::gt : Op::ge, wanted).apply(Op::logical_not);
    count = more.apply(Op::le, length).apply(Op::bitwise_and, before).select(more, count);
  }
  return count;
}

Value* import_searchsorted(Call& call) {
  Value* sequence = call.tensor("sorted_sequence");
  if (Value* sorter = call.optional_tensor("sorter")) {
    const int64_t last = static_cast<int64_t>(sequence->type.rank()) - 1;
    Value* index = checked_index(call, sorter, sequence->type.shape.back(), false, "searchsorted");
    sequence = call.make(Op::gather_elements, {sequence, index}, {{"axis", last}});
  }
  const std::string side = call.text_or("side", call.boolean_or("right", false) ? "right" : "left");
  return search_sorted(call, sequence, call.operand("self"), side == "right");
}

Value* import_bucketize(Call& call) {
  return search_sorted(call, call.tensor("boundaries"), call.operand("self"),
                       call.boolean_or("right", false));
}

constexpr Row kRows[] = {
    {"aten.sort.default", import_sort},
    {"aten.sort.stable", import_sort},
    {"aten.argsort.default", import_argsort},
    {"aten.argsort.stable", import_argsort},
    {"aten.msort.default", import_msort},
    {"aten.topk.default", import_topk},
    {"aten.kthvalue.default", import_kthvalue},
    {"aten.median.default", import_median<false>},
    {"aten.median.dim", import_median_dim<false>},
    {"aten.nanmedian.default", import_median<true>},
    {"aten.nanmedian.dim", import_median_dim<true>},
    {"aten.searchsorted.Tensor", import_searchsorted},
    {"aten.searchsorted.Scalar", import_searchsorted},
    {"aten.bucketize.Tensor", import_bucketize},
    {"aten.bucketize.Scalar", import_bucketize},
};

}  // namespace

Value* search_sorted(Call& call, const Operand& sequence, const Operand& value, bool right) {
  std::vector<Value*> operands = promote(call.builder(), {sequence, value});
  const int64_t rank = static_cast<int64_t>(operands[0]->type.rank());
  call.expect(rank >= 1, "a sequence of rank 0", "rank 1 or more");
  const DType dtype = call.boolean_or("out_int32", false) ? DType::I32 : DType::I64;
  if (operands[0]->type.shape.back().upper_bound() > kMostCompared)
    return call.builder().cast(bisect(call, operands[0], {call, operands[1]}, right), dtype);
  const Expr row(call, rank == 1 ? operands[0] : unsqueeze(call, operands[0], rank - 1));
  const bool is_scalar = operands[1]->type.rank() == 0;
  const Expr wanted(call, is_scalar ? operands[1]
                                    : unsqueeze(call, operands[1],
                                                static_cast<int64_t>(operands[1]->type.rank())));
  const Expr before = row.apply(right ? Op::gt : Op::ge, wanted).apply(Op::logical_not);
  const Expr ones(call, call.builder().cast(before, dtype));
  return reduce(call, Op::reduce_sum, ones, {static_cast<int64_t>(ones.value()->type.rank()) - 1},
                false);
}

Rows sort_rows() { return kRows; }

}  // namespace kiln::import
