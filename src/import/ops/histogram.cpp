// Histograms, and reductions of segments of an axis.
#include <limits>
#include <string>

#include "import/ops/sort.h"

namespace kiln::import {
namespace {

using ir::Dim;

// --- Histograms ---

Value* along(Call& call, Value* x, int64_t start, const Dim& size) {
  return slice(call, x, 0, start, size);
}

// Where bins begin and end, from the least element to the largest or as `range` says: from both ends towards the middle, as
// torch.linspace has them.
Value* even_edges(Call& call, const Expr& flat, int64_t bins) {
  std::vector<double> range;
  if (call.has("range")) range = call.reals("range");
  call.expect(range.empty() || range.size() == 2, "a range of " + std::to_string(range.size()),
              "two numbers");
  const bool is_empty = flat.value()->type.elements().is_constant(0);
  if (range.empty() && is_empty) range = {0, 1};
  Expr low = flat.constant(range.empty() ? 0 : range[0]);
  Expr high = flat.constant(range.empty() ? 0 : range[1]);
  if (range.empty()) {
    call.expect(flat.value()->type.elements().lower_bound() > 0, "a size that may be 0",
                "elements, or a range");
    low = Expr(call, reduce(call, Op::reduce_min, flat, {0}, false));
    high = Expr(call, reduce(call, Op::reduce_max, flat, {0}, false));
    const Expr width = high - low;
    require_data(call, (width - width).apply(Op::eq, 0),
                 "got elements that are not finite, expected a range of finite numbers");
  }
  const Expr is_point = low.apply(Op::eq, high);
  low = is_point.select(low - 0.5, low);
  high = is_point.select(high + 0.5, high);
  const Expr step = (high - low) / static_cast<double>(bins);
  const Expr place(call, iota(call, bins + 1, flat.value()->type.dtype));
  const Expr left = low + step * place, right = high - step * (static_cast<double>(bins) - place);
  return place.apply(Op::lt, static_cast<double>((bins + 1) / 2)).select(left, right);
}

// The last bin has its end; what lies outside of all of them does not count, nor does NaN.
std::vector<Value*> import_histogram(Call& call) {
  Value* x = call.tensor("self");
  const DType dtype = x->type.dtype;
  call.expect(is_floating(dtype), x->type.str(), "floats");
  const Dim count = x->type.elements();
  const Expr flat(call, call.builder().reshape(x, {count}));
  const bool has_edges = call.node().target.ends_with(".bins_tensor");
  if (!has_edges) call.expect(call.integer_or("bins", 100) > 0, "no bins", "one or more");
  Value* edges =
      has_edges ? call.tensor("bins") : even_edges(call, flat, call.integer_or("bins", 100));
  const Dim size = edges->type.shape[0] - 1;
  call.expect(size.is_constant() && size.constant() > 0, edges->type.str(),
              "two edges or more, of a known number");
  const int64_t bins = size.constant();
  const Expr place = Expr(call, search_sorted(call, edges, flat.value(), true)) - 1;
  const Expr first(call, along(call, edges, 0, 1)), last(call, along(call, edges, bins, 1));
  const Expr is_inside = flat.apply(Op::ge, first) * flat.apply(Op::le, last);
  const double end = static_cast<double>(bins) - 1;
  Value* index = is_inside.select(place.apply(Op::minimum, end), place.constant(-1));
  Value* weight = call.optional_tensor("weight");
  Value* source = weight != nullptr ? call.builder().reshape(weight, {count})
                                    : call.builder().reshape(call.builder().scalar(dtype, 1), {1});
  Value* none = call.builder().expand(call.builder().scalar(dtype, 0), {size});
  Expr counts(call, call.make(Op::scatter, {none, index, source},
                              {{"axis", int64_t{0}}, {"combine", std::string("sum")}}));
  if (call.boolean_or("density", false)) {
    const Expr total(call, reduce(call, Op::reduce_sum, counts, {0}, true));
    const Expr width =
        Expr(call, along(call, edges, 1, size)) - Expr(call, along(call, edges, 0, size));
    counts = counts / total / width;
  }
  return {counts, edges};
}

// --- Segments ---

struct Reduction {
  const char* combine;
  double initial;
};

Reduction reduction_of(Call& call, const std::string& name) {
  constexpr double kInfinity = std::numeric_limits<double>::infinity();
  if (name == "max") return {"max", -kInfinity};
  if (name == "min") return {"min", kInfinity};
  if (name == "prod") return {"prod", 1};
  call.expect(name == "sum" || name == "mean", name, "sum, mean, max, min or prod");
  return {"sum", 0};
}

// [.., n + 1]: where segments begin, and where the last one ends.
Value* offsets_of(Call& call, const Dim& size) {
  if (Value* offsets = call.optional_tensor("offsets")) return as_index(call, offsets);
  call.expect(call.has("lengths"), "neither lengths nor offsets", "one of them");
  Value* lengths = as_index(call, call.tensor("lengths"));
  const auto last = static_cast<int64_t>(lengths->type.rank()) - 1;
  require_data(call, Expr(call, lengths).apply(Op::ge, 0),
               "got a negative length, expected 0 or more");
  Value* ends = call.make(Op::cumsum, {lengths}, {{"axis", last}});
  std::vector<Dim> before(lengths->type.rank(), 0), after = before;
  before.back() = 1;
  Value* offsets = pad_constant(call, ends, before, after);
  if (!call.boolean_or("unsafe", false)) {
    const Expr whole(call, call.make(Op::dim_value, {}, {{"value", size}, {"dtype", DType::I64}}));
    const Expr total(call, slice(call, offsets, last, lengths->type.shape.back(), 1));
    require_data(call, total.apply(Op::eq, whole),
                 "got lengths whose sum is not the size of the axis, expected the size");
  }
  return offsets;
}

// The axis is the last one of the lengths; axes in front of it have lengths of their own.
Value* import_segment_reduce(Call& call) {
  Value* x = call.tensor("data");
  const int64_t axis = call.axis_or("axis", x->type.rank(), 0);
  const auto at = static_cast<size_t>(axis);
  const Dim size = x->type.shape[at];
  const std::string name = call.text_or("reduce", "");
  const Reduction reduction = reduction_of(call, name);
  Value* offsets = offsets_of(call, size);
  call.expect(offsets->type.rank() == at + 1, offsets->type.str(),
              "as many axes as up to the one that is reduced");
  const Dim count = offsets->type.shape[at] - 1;
  // Which segment each element is in: the one that began last. [.., size]
  expect_work(call, {offsets->type.elements(), size}, int64_t{1} << 24);
  const Expr place(call, iota(call, size));
  const Expr starts(call, unsqueeze(call, offsets, axis + 1));
  const Expr begun(call, call.builder().cast(starts.apply(Op::le, place), DType::I64));
  Value* segment = Expr(call, reduce(call, Op::reduce_sum, begun, {axis}, false)) - 1;
  const auto with_others = [&](Value* of_axis) {
    for (size_t i = at + 1; i < x->type.rank(); ++i)
      of_axis = unsqueeze(call, of_axis, static_cast<int64_t>(i));
    return of_axis;
  };
  ir::Shape shape = x->type.shape;
  shape[at] = count;
  const bool has_initial = call.has("initial");
  const double initial = call.real_or("initial", reduction.initial);
  Value* none = call.builder().expand(call.builder().scalar(x->type.dtype, initial), shape);
  const Expr result(call, call.make(Op::scatter, {none, with_others(segment), x},
                                    {{"axis", axis}, {"combine", std::string(reduction.combine)}}));
  if (name != "mean") return result;
  const Expr lengths = Expr(call, slice(call, offsets, axis, 1, count)) -
                       Expr(call, slice(call, offsets, axis, 0, count));
  const Expr number(call, with_others(call.builder().cast(lengths, x->type.dtype)));
  // Without elements there is no mean, but what it began with.
  const double empty = has_initial ? initial : std::numeric_limits<double>::quiet_NaN();
  return number.apply(Op::eq, 0).select(result.constant(empty), result / number);
}

constexpr Row kRows[] = {
    {"aten.histogram.bin_ct", import_histogram},
    {"aten.histogram.bins_tensor", import_histogram},
    {"aten.segment_reduce.default", in_f32<import_segment_reduce>},
};

}  // namespace

Rows histogram_rows() { return kRows; }

}  // namespace kiln::import
