// Writing elements by index.
//
// Few indices (the positions of a step in a cache) are compared with every position instead: an element of the result looks
// for the sources that are written to it, in a fixed order, which fuses with what is around it. More are a scatter.
#include <algorithm>
#include <cmath>
#include <limits>
#include <string>

#include "import/ops/common.h"
#include "import/ops/masked.h"

namespace kiln::import {
namespace {

using ir::Dim;

constexpr int64_t kFewIndices = 32;

enum class Combine { Replace, Sum, Prod, Max, Min, Mean };

Combine combine_of(Call& call, const std::string& name) {
  if (name == "sum" || name == "add") return Combine::Sum;
  if (name == "prod" || name == "multiply") return Combine::Prod;
  if (name == "amax") return Combine::Max;
  if (name == "amin") return Combine::Min;
  if (name == "mean") return Combine::Mean;
  call.fail("reduce = \"" + name + "\"", "sum, prod, mean, amax or amin");
}

// What is written where: an axis of `index` (i64) says for each source element which position along that axis of the target
// it goes to. What is no position is not written.
struct Writes {
  Value* index;
  Value*
      source;  // of rank 0, or with the other axes of the target, which those of `index` broadcast to
};

// The value that changes nothing; least_integer where that is the greatest one.
double neutral(Combine how, DType dtype) {
  if (how == Combine::Prod) return 1;
  if (how != Combine::Max && how != Combine::Min) return 0;
  const bool least = how == Combine::Max;
  if (is_floating(dtype)) {
    return least ? -std::numeric_limits<double>::infinity()
                 : std::numeric_limits<double>::infinity();
  }
  return static_cast<double>(least_integer(dtype));
}

// The greatest i64 is no double: it is the complement of the least.
Value* unchanged_by(Call& call, Combine how, DType dtype) {
  Value* value = call.builder().scalar(dtype, neutral(how, dtype));
  const bool is_greatest = how == Combine::Min && !is_floating(dtype);
  return is_greatest ? call.make(Op::bitwise_not, {value}) : value;
}

Value* reduce_last(Call& call, Op op, Value* x) {
  return reduce(call, op, x, {static_cast<int64_t>(x->type.rank()) - 1}, false);
}

Op reduction_of(Combine how) {
  switch (how) {
    case Combine::Prod:
      return Op::reduce_prod;
    case Combine::Max:
      return Op::reduce_max;
    case Combine::Min:
      return Op::reduce_min;
    default:
      return Op::reduce_sum;
  }
}

// The last of several sources wins.
Value* replace(Call& call, Value* target, const Expr& hits, const Writes& writes) {
  if (writes.source->type.rank() == 0) {
    const Expr any(call, reduce_last(call, Op::reduce_max, hits));
    return any.select({call, writes.source}, {call, target});
  }
  const Expr place(call, iota(call, writes.index->type.shape.back()));
  const Expr last(call, reduce_last(call, Op::reduce_max, hits.select(place, place.constant(-1))));
  Value* from = call.builder().expand(last.apply(Op::maximum, 0), target->type.shape);
  const Expr written(call, call.make(Op::gather_elements, {writes.source, from},
                                     {{"axis", static_cast<int64_t>(target->type.rank()) - 1}}));
  return last.apply(Op::ge, 0).select(written, {call, target});
}

// The target with what is written to its last axis.
Value* compare(Call& call, Value* target, const Writes& writes, Combine how, bool include_self) {
  const Expr position(call, unsqueeze(call, iota(call, target->type.shape.back()), 1));
  const Expr hits = position.apply(
      Op::eq,
      {call, unsqueeze(call, writes.index, static_cast<int64_t>(writes.index->type.rank()) - 1)});
  if (how == Combine::Replace) return replace(call, target, hits, writes);
  const DType dtype = target->type.dtype, wide = compute_dtype(dtype);
  Value* source = call.builder().cast(writes.source, wide);
  if (source->type.rank() > 0)
    source = unsqueeze(call, source, static_cast<int64_t>(source->type.rank()) - 1);
  const Expr self(call, call.builder().cast(target, wide));
  const Expr unchanged(call, unchanged_by(call, how, wide));
  const Expr combined(call,
                      reduce_last(call, reduction_of(how), hits.select({call, source}, unchanged)));
  const Expr any(call, reduce_last(call, Op::reduce_max, hits));
  Expr result = combined;
  if (how == Combine::Max || how == Combine::Min) {
    if (include_self)
      result = self.apply(how == Combine::Max ? Op::maximum : Op::minimum, combined);
  } else if (include_self) {
    result = how == Combine::Prod ? self * combined : self + combined;
  }
  if (how == Combine::Mean) {
    Value* number = reduce_last(call, Op::reduce_sum, call.builder().cast(hits, wide));
    Expr count(call, number);
    if (include_self) count = count + 1;
    count = count.apply(Op::maximum, 1);
    result = result.apply(is_floating(wide) ? Op::div : Op::floor_div, count);
  }
  if (!include_self) result = any.select(result, self);
  return call.builder().cast(result, dtype);
}

std::string name_of(Combine how) {
  switch (how) {
    case Combine::Replace:
      return "replace";
    case Combine::Prod:
      return "prod";
    case Combine::Max:
      return "max";
    case Combine::Min:
      return "min";
    default:
      return "sum";
  }
}

// The same by scatters, to any axis. The index has the rank of the target.
Value* scatter_to(Call& call, Value* target, int64_t axis, const Writes& writes, Combine how,
                  bool include_self) {
  const DType dtype = target->type.dtype;
  const DType wide = how == Combine::Replace ? dtype : compute_dtype(dtype);
  const auto of_rank = [&](Value* value) {
    return call.builder().reshape(value, ir::Shape(target->type.rank(), Dim(1)));
  };
  const auto filled = [&](DType type) {
    return call.builder().expand(call.builder().scalar(type, 0), target->type.shape);
  };
  const auto scattered = [&](Value* x, Value* source, Combine combine) {
    return call.make(Op::scatter, {x, writes.index, source},
                     {{"axis", axis}, {"combine", name_of(combine)}});
  };
  Value* source = call.builder().cast(writes.source, wide);
  if (source->type.rank() == 0) source = of_rank(source);
  Value* initial = call.builder().cast(target, wide);
  if (!include_self) {
    Value* yes = of_rank(call.builder().scalar(DType::Bool, 1));
    const Expr hits(call, scattered(filled(DType::Bool), yes, Combine::Replace));
    initial = hits.select({call, unchanged_by(call, how, wide)}, {call, initial});
  }
  Expr result(call, scattered(initial, source, how));
  if (how == Combine::Mean) {
    Value* one = of_rank(call.builder().scalar(wide, 1));
    Expr count(call, scattered(filled(wide), one, Combine::Sum));
    if (include_self) count = count + 1;
    count = count.apply(Op::maximum, 1);
    result = result.apply(is_floating(wide) ? Op::div : Op::floor_div, count);
  }
  return call.builder().cast(result, dtype);
}

// Whether a value is a part of an input that the model changes, or what that was made of before: what is
// not written need not be touched.
bool is_state(const ir::Graph& graph, const Value* value) {
  while (value->producer != nullptr) {
    const Op op = value->producer->op;
    const bool keeps =
        op == Op::reshape || op == Op::permute || op == Op::slice || op == Op::scatter;
    if (!keeps && op != Op::concat) return false;
    value = value->producer->input(0);
  }
  return std::ranges::any_of(
      graph.updates, [&](const auto& update) { return graph.inputs()[update.second] == value; });
}

// The target with what is written to an axis of it. The index has the rank of the target.
Value* write(Call& call, Value* target, int64_t axis, const Writes& writes, Combine how,
             bool include_self) {
  const Dim& number = writes.index->type.shape[static_cast<size_t>(axis)];
  // Of no sources there is none to look for.
  const bool is_update = how == Combine::Replace && is_state(call.builder().graph(), target);
  if (is_update || number.upper_bound() > kFewIndices || number.lower_bound() < 1)
    return scatter_to(call, target, axis, writes, how, include_self);
  const int64_t last = static_cast<int64_t>(target->type.rank()) - 1;
  const bool is_scalar = writes.source->type.rank() == 0;
  const Writes moved = {move_axis(call, writes.index, axis, last),
                        is_scalar ? writes.source : move_axis(call, writes.source, axis, last)};
  Value* result = compare(call, move_axis(call, target, axis, last), moved, how, include_self);
  return move_axis(call, result, last, axis);
}

// x along an axis, filled up at the end so that it has `size` elements.
Value* fill_up(Call& call, Value* x, const ir::Shape& shape, int64_t except, double value) {
  std::vector<Dim> before(shape.size(), 0), after(shape.size(), 0);
  bool is_full = true;
  for (size_t i = 0; i < shape.size(); ++i) {
    if (static_cast<int64_t>(i) == except || x->type.shape[i] == shape[i]) continue;
    after[i] = shape[i] - x->type.shape[i];
    is_full = false;
  }
  if (is_full) return x;
  return pad_constant(call, x, before, after, value);
}

// x[..., index[i, j], ...] = source[i, j]. The index may be smaller than x along the other axes, and than the source along all.
Value* scatter(Call& call, Value* x, Value* source, Combine how, bool include_self) {
  Value* given = call.tensor("index");
  const ir::Shape shape = x->type.shape;
  const bool is_scalar = x->type.rank() == 0;
  const auto with_axis = [&](Value* value) {
    return value->type.rank() == 0 ? call.builder().reshape(value, {1}) : value;
  };
  const int64_t axis = call.axis("dim", x->type.rank());
  x = with_axis(x);
  const int64_t last = static_cast<int64_t>(x->type.rank()) - 1;
  Value *const part = with_axis(given), *index = part;
  if (index->type.rank() != x->type.rank()) {
    expect_empty(call, index, x->type.rank());
    return call.builder().reshape(x, shape);
  }
  for (int64_t i = 0; i <= last; ++i) {
    if (i != axis) require_part(call, part, x, i);
  }
  index = checked_index(call, index, x->type.shape[axis], false, call.operation());
  const bool is_tensor = source->type.rank() > 0 || (is_scalar && call.has("src"));
  if (is_tensor) {
    source = with_axis(source);
    for (int64_t i = 0; i <= last; ++i) {
      require_part(call, part, source, i);
      source = slice(call, source, i, 0, index->type.shape[i]);
    }
    source = fill_up(call, source, x->type.shape, axis, 0);
  }
  index = fill_up(call, index, x->type.shape, axis, -1);
  return call.builder().reshape(write(call, x, axis, {index, source}, how, include_self), shape);
}

Value* source_of(Call& call, Value* x) {
  return as_value(call.builder(), call.operand(call.has("src") ? "src" : "value"), x->type.dtype);
}

Value* import_scatter(Call& call) {
  Value* x = call.tensor("self");
  const Combine how =
      call.has("reduce") ? combine_of(call, call.text_or("reduce", "")) : Combine::Replace;
  return scatter(call, x, source_of(call, x), how, true);
}

Value* import_scatter_add(Call& call) {
  Value* x = call.tensor("self");
  return scatter(call, x, source_of(call, x), Combine::Sum, true);
}

Value* import_scatter_reduce(Call& call) {
  Value* x = call.tensor("self");
  const Combine how = combine_of(call, call.text_or("reduce", ""));
  return scatter(call, x, source_of(call, x), how, call.boolean_or("include_self", true));
}

// Indices that may count from the end, counted from the start.
Value* from_start(Call& call, Value* index, const Dim& size) {
  const Expr place(call, index);
  const Expr length(call, call.make(Op::dim_value, {}, {{"value", size}, {"dtype", DType::I64}}));
  return place.apply(Op::lt, 0).select(place + length, place);
}

// x with slices along an axis written: index[j] says where slice j of the source goes.
Value* write_slices(Call& call, Value* x, Value* source, Combine how, bool include_self) {
  Value* given = call.tensor("index");
  const ir::Shape shape = x->type.shape;
  const int64_t axis = call.axis("dim", x->type.rank());
  const auto with_axis = [&](Value* value) {
    return value->type.rank() == 0 ? call.builder().reshape(value, {1}) : value;
  };
  const bool is_scalar_source =
      source->type.rank() == 0 && x->type.rank() != 0 && !call.has("source");
  x = with_axis(x);
  const int64_t last = static_cast<int64_t>(x->type.rank()) - 1;
  // Only index_fill counts from the end as well.
  const bool from_end = call.operation() == "index_fill";
  Value* index =
      checked_index(call, with_axis(given), x->type.shape[axis], from_end, call.operation());
  if (from_end) index = from_start(call, index, x->type.shape[axis]);
  if (!is_scalar_source) {
    if (source->type.rank() == 0)
      source = call.builder().reshape(source, ir::Shape(static_cast<size_t>(last) + 1, Dim(1)));
    ir::Shape sizes = x->type.shape;
    sizes[axis] = index->type.shape[0];
    source = call.builder().expand(source, sizes);
  }
  ir::Shape along(x->type.rank(), Dim(1));
  along[axis] = index->type.shape[0];
  index = call.builder().reshape(index, along);
  return call.builder().reshape(write(call, x, axis, {index, source}, how, include_self), shape);
}

Value* import_index_copy(Call& call) {
  return write_slices(call, call.tensor("self"), call.tensor("source"), Combine::Replace, true);
}

Value* import_index_fill(Call& call) {
  Value* x = call.tensor("self");
  Value* value = as_value(call.builder(), call.operand("value"), x->type.dtype);
  return write_slices(call, x, call.builder().reshape(value, {}), Combine::Replace, true);
}

Value* import_index_add(Call& call) {
  Value* x = call.tensor("self");
  Expr source(call, call.tensor("source"));
  const double alpha = call.real_or("alpha", 1);
  if (alpha != 1) source = source * alpha;
  return write_slices(call, x, source, Combine::Sum, true);
}

Value* import_index_reduce(Call& call) {
  const Combine how = combine_of(call, call.text_or("reduce", ""));
  return write_slices(call, call.tensor("self"), call.tensor("source"), how,
                      call.boolean_or("include_self", true));
}

// The indexed axes of x in front and as one, the others behind them and as one.
struct Flat {
  std::vector<int64_t> order;  // of the axes
  ir::Shape ordered;
  Value* value;  // [positions, rest]
};

Flat flatten(Call& call, Value* x, const std::vector<int64_t>& axes) {
  Flat flat{axes, {}, nullptr};
  for (int64_t i = 0; i < static_cast<int64_t>(x->type.rank()); ++i) {
    if (std::ranges::find(axes, i) == axes.end()) flat.order.push_back(i);
  }
  Value* moved = call.builder().permute(x, flat.order);
  flat.ordered = moved->type.shape;
  Dim positions = 1, rest = 1;
  for (size_t i = 0; i < flat.ordered.size(); ++i)
    (i < axes.size() ? positions : rest) *= flat.ordered[i];
  flat.value = call.builder().reshape(moved, {positions, rest});
  return flat;
}

// Positions along the flattened axes, of rank 1, and the common shape of the indices.
std::pair<Value*, ir::Shape> flat_index(Call& call, const Value* x,
                                        const std::vector<Value*>& given,
                                        const std::vector<int64_t>& axes) {
  ir::Shape shape;
  Value* flat = nullptr;
  for (int64_t axis : axes) {
    const Dim size = x->type.shape[axis];
    refuse_byte_mask(call, given[axis]);
    Value* index = checked_index(call, given[axis], size, true, "index_put");
    index = from_start(call, index, size);
    if (flat == nullptr) {
      flat = index;
    } else {
      const Expr length(call,
                        call.make(Op::dim_value, {}, {{"value", size}, {"dtype", DType::I64}}));
      flat = Expr(call, flat) * length + Expr(call, index);
    }
  }
  shape = flat->type.shape;
  return {call.builder().reshape(flat, {flat->type.elements()}), shape};
}

// x with values where the indices of one axis say, which stays where it is: their shape stands in its place.
Value* put_along(Call& call, Value* x, int64_t axis, Value* given, Value* values, bool accumulate) {
  refuse_byte_mask(call, given);
  Value* index = checked_index(call, given, x->type.shape[axis], true, "index_put");
  index = from_start(call, index, x->type.shape[axis]);
  ir::Shape target = x->type.shape, along(x->type.rank(), Dim(1));
  target.erase(target.begin() + axis);
  target.insert(target.begin() + axis, index->type.shape.begin(), index->type.shape.end());
  values = call.builder().expand(values, target);
  along[axis] = index->type.elements();
  target = x->type.shape;
  target[axis] = index->type.elements();
  const Writes writes = {call.builder().reshape(index, along),
                         call.builder().reshape(values, target)};
  return write(call, x, axis, writes, accumulate ? Combine::Sum : Combine::Replace, true);
}

bool is_mask(const Value* index) { return index != nullptr && index->type.dtype == DType::Bool; }

// Indices of which one was a mask: the positions of all its elements, and which of them it selects (null: none was a mask).
struct Unmasked {
  std::vector<Value*> indices;
  Value* selected = nullptr;
};

Unmasked replace_mask(Call& call, const std::vector<Value*>& given) {
  if (std::ranges::none_of(given, is_mask)) return {given};
  call.expect(std::ranges::count_if(given, is_mask) == 1, "several masks", "one");
  Unmasked result;
  for (Value* index : given) {
    if (!is_mask(index)) {
      call.expect(index == nullptr || index->type.elements().is_constant(1),
                  "a mask beside an index that may have several elements", "one element");
      result.indices.push_back(index);
      continue;
    }
    const Dim size = index->type.elements();
    result.selected = call.builder().reshape(index, {size});
    for (Value* position : positions_of(call, iota(call, size), index->type.shape))
      result.indices.push_back(position);
  }
  return result;
}

Value* import_index_put(Call& call) {
  Value *x = call.tensor("self"), *values = call.tensor("values");
  const std::vector<Value*> all = call.tensors("indices");
  const bool accumulate = call.boolean_or("accumulate", false);
  const auto mask = std::ranges::find_if(all, is_mask);
  const auto number = std::ranges::count_if(all, [](Value* each) { return each != nullptr; });
  if (mask != all.end() && number == 1) {
    const auto at = static_cast<size_t>(mask - all.begin());
    return put_masked(call, x, {*mask, at}, values, accumulate);
  }
  const auto [given, selected] = replace_mask(call, all);
  std::vector<int64_t> axes;
  for (size_t i = 0; i < given.size(); ++i)
    if (given[i] != nullptr) axes.push_back(static_cast<int64_t>(i));
  call.expect(!axes.empty(), "no index", "one or more");
  if (axes.size() == 1 && is_state(call.builder().graph(), x))
    return put_along(call, x, axes[0], given[axes[0]], values, accumulate);
  const Flat flat = flatten(call, x, axes);
  auto [index, shape] = flat_index(call, x, given, axes);
  // Where the indices are neighbours their shape stands in their place, else in front.
  const bool adjacent = axes.back() - axes[0] + 1 == static_cast<int64_t>(axes.size());
  const int64_t front = adjacent ? axes[0] : 0;
  ir::Shape target;
  std::vector<int64_t> order = range(front, front + static_cast<int64_t>(shape.size()));
  for (size_t i = axes.size(); i < flat.order.size(); ++i) target.push_back(flat.ordered[i]);
  target.insert(target.begin() + front, shape.begin(), shape.end());
  for (int64_t i = 0; i < static_cast<int64_t>(target.size()); ++i) {
    if (i < front || i >= front + static_cast<int64_t>(shape.size())) order.push_back(i);
  }
  if (selected != nullptr) {
    const auto behind = static_cast<int64_t>(target.size() - shape.size()) - front;
    const auto axis_of_values = static_cast<int64_t>(values->type.rank()) - 1 - behind;
    values = spread_values(call, selected, values, axis_of_values);
    const Expr place(call, index);
    index = Expr(call, selected).select(place, place.constant(-1));
  }
  values = call.builder().permute(call.builder().expand(values, target), order);
  values = call.builder().reshape(values, {index->type.shape[0], flat.value->type.shape[1]});
  Value* column = call.builder().reshape(index, {index->type.shape[0], 1});
  Value* result = write(call, flat.value, 0, {column, values},
                        accumulate ? Combine::Sum : Combine::Replace, true);
  result = call.builder().reshape(result, flat.ordered);
  std::vector<int64_t> back(flat.order.size());
  for (size_t i = 0; i < back.size(); ++i) back[flat.order[i]] = static_cast<int64_t>(i);
  return call.builder().permute(result, back);
}

// x with elements written by their place in row-major order.
Value* import_put(Call& call) {
  Value *x = call.tensor("self"), *source = call.tensor("source");
  const Dim size = x->type.elements();
  Value* index = checked_index(call, call.tensor("index"), size, true, "put");
  index = from_start(call, index, size);
  const Dim count = index->type.elements();
  const Writes writes = {call.builder().reshape(index, {count}),
                         call.builder().reshape(source, {count})};
  const Combine how = call.boolean_or("accumulate", false) ? Combine::Sum : Combine::Replace;
  Value* result = write(call, call.builder().reshape(x, {size}), 0, writes, how, true);
  return call.builder().reshape(result, x->type.shape);
}

// Which bag each of `count` indices is in: how many bags begin up to there, less 1. The last offset may be `count`.
Value* bag_of_each(Call& call, Value* offsets, const Dim& count) {
  Value* begins = checked_index(call, offsets, count + 1, false, call.operation());
  Value* none = call.builder().expand(call.builder().scalar(DType::I64, 0), {count + 1});
  Value* one = call.builder().reshape(call.builder().scalar(DType::I64, 1), {1});
  Value* marks = call.make(Op::scatter, {none, begins, one},
                           {{"axis", int64_t{0}}, {"combine", std::string("sum")}});
  Value* started = call.make(Op::cumsum, {slice(call, marks, 0, 0, count)}, {{"axis", int64_t{0}}});
  return Expr(call, started) - 1;
}

// Sums, means or maxima of rows of a table. The first offset is 0, as PyTorch checks.
std::vector<Value*> import_embedding_bag(Call& call) {
  call.compute_in_f32();
  for (size_t i = 1; i < 4; ++i)
    call.expect(!call.output_used(i), "a use of result " + std::to_string(i), "the bags only");
  Value *weight = call.tensor("weight"), *given = call.tensor("indices");
  Value* offsets = as_index(call, call.tensor("offsets"));
  call.expect(given->type.rank() == 1 && offsets->type.rank() == 1,
              "indices of rank " + std::to_string(given->type.rank()), "rank 1, with offsets");
  require_data(call, Expr(call, slice(call, offsets, 0, 0, 1)).apply(Op::eq, 0),
               "got an offset of the first bag that is not 0, expected 0");
  const Dim count = given->type.shape[0], width = weight->type.shape[1];
  const bool has_end = call.boolean_or("include_last_offset", false);
  const Dim bags = offsets->type.shape[0] - (has_end ? 1 : 0);
  Value* end = has_end ? slice(call, offsets, 0, bags, 1) : nullptr;
  if (has_end) {
    offsets = slice(call, offsets, 0, 0, bags);
    const Expr indices(call,
                       call.make(Op::dim_value, {}, {{"value", count}, {"dtype", DType::I64}}));
    require_data(call, Expr(call, end).apply(Op::le, indices),
                 "got a last offset beyond the indices, expected their number or less");
  }
  Expr bag(call, bag_of_each(call, offsets, count));
  Value* index = checked_index(call, given, weight->type.shape[0], false, "embedding_bag");
  const int64_t padding = call.integer_or("padding_idx", -1);
  const bool ignores =
      call.has("padding_idx") && (padding >= 0 || call.node().target.ends_with(".padding_idx"));
  if (ignores) {
    const Dim row = padding < 0 ? weight->type.shape[0] + padding : Dim(padding);
    const Expr ignored(call, call.make(Op::dim_value, {}, {{"value", row}, {"dtype", DType::I64}}));
    bag = Expr(call, index).apply(Op::eq, ignored).select(bag.constant(-1), bag);
  }
  Expr rows(call, call.make(Op::gather, {weight, index}, {{"axis", int64_t{0}}}));
  if (Value* factors = call.optional_tensor("per_sample_weights"))
    rows = rows * Expr(call, unsqueeze(call, factors, 1));
  const int64_t mode = call.integer_or("mode", 0);
  const Combine how = mode == 0 ? Combine::Sum : mode == 1 ? Combine::Mean : Combine::Max;
  // Rows behind the last offset count for the mean, but PyTorch's fast kernels, which are for these, do not add them.
  if (end != nullptr && how != Combine::Max && weight->type.dtype == DType::F32 && !ignores) {
    const Expr before =
        Expr(call, unsqueeze(call, iota(call, count), 1)).apply(Op::lt, Expr(call, end));
    rows = before.select(rows, rows.constant(0));
  }
  Value* empty = call.builder().expand(call.builder().scalar(weight->type.dtype, 0), {bags, width});
  const Writes writes{unsqueeze(call, bag, 1), rows};
  // Bags without rows stay zeros.
  Value* result = scatter_to(call, empty, 0, writes, how, how == Combine::Sum);
  return {result, nullptr, nullptr, nullptr};
}

// Where element i of the blocks is in the image: i * step + offset. Others get zero.
Value* spread(Call& call, Value* x, int64_t axis, int64_t step, const Dim& offset,
              const Dim& size) {
  ir::Shape shape = x->type.shape;
  const Dim steps = shape[axis] * step;
  shape[axis] = steps;
  const size_t rank = shape.size();
  if (step > 1) {
    std::vector<Dim> none(rank + 1, 0), after(rank + 1, 0);
    after[static_cast<size_t>(axis) + 1] = step - 1;
    x = pad_constant(call, unsqueeze(call, x, axis + 1), none, after);
    x = call.builder().reshape(x, shape);
  }
  std::vector<Dim> before(rank, 0), after(rank, 0);
  before[axis] = offset;
  after[axis] = size - steps - offset;
  return pad_constant(call, x, before, after);
}

// [N, C * kernel, blocks] to images, in which blocks that overlap are added.
Value* import_col2im(Call& call) {
  Value* x = call.tensor("self");
  const std::vector<Dim> size = call.dims("output_size");
  const auto pair = [&](std::string_view name) { return per_axis(call, call.integers(name), 2); };
  const std::vector<int64_t> kernel = pair("kernel_size"), dilation = pair("dilation"),
                             padding = pair("padding"), stride = pair("stride");
  call.expect(kernel[0] * kernel[1] <= 64,
              "a kernel of " + std::to_string(kernel[0] * kernel[1]) + " elements", "64 or fewer");
  const bool batched = x->type.rank() == 3;
  if (!batched) x = unsqueeze(call, x, 0);
  std::vector<Dim> blocks;
  for (size_t i = 0; i < 2; ++i) {
    blocks.push_back(
        ir::floordiv(size[i] + 2 * padding[i] - dilation[i] * (kernel[i] - 1) - 1, stride[i]) + 1);
  }
  const Dim channels = ir::floordiv(x->type.shape[1], kernel[0] * kernel[1]);
  x = call.builder().reshape(
      x, {x->type.shape[0], channels, kernel[0] * kernel[1], blocks[0], blocks[1]});
  Value* sum = nullptr;
  for (int64_t i = 0; i < kernel[0] * kernel[1]; ++i) {
    Value* part = slice(call, x, 2, i, 1);
    part = call.builder().reshape(part, {x->type.shape[0], channels, blocks[0], blocks[1]});
    part = spread(call, part, 2, stride[0], i / kernel[1] * dilation[0] - padding[0], size[0]);
    part = spread(call, part, 3, stride[1], i % kernel[1] * dilation[1] - padding[1], size[1]);
    sum = sum == nullptr ? part : (Expr(call, sum) + Expr(call, part)).value();
  }
  if (batched) return sum;
  ir::Shape shape = sum->type.shape;
  shape.erase(shape.begin());
  return call.builder().reshape(sum, shape);
}

// How many elements are in each of `bins` equal parts of a range: of the range given, or of all elements if it is empty.
Value* import_histc(Call& call) {
  Value* self = call.tensor("self");
  const DType dtype = self->type.dtype;
  const Expr x(call, call.builder().reshape(
                         is_floating(dtype) ? self : call.builder().cast(self, DType::F64),
                         {self->type.elements()}));
  const int64_t bins = call.integer_or("bins", 100);
  const double low = call.real_or("min", 0), high = call.real_or("max", 0);
  call.expect(bins >= 1 && low <= high && std::isfinite(high - low),
              std::to_string(bins) + " bins from " + std::to_string(low), "1 or more, and a range");
  Expr first = x.constant(low), last = x.constant(high);
  if (low == high) {
    require_elements(call, x, {0}, ir::Requirement::Kind::Sizes);
    first = Expr(call, reduce(call, Op::reduce_min, x, {0}, false));
    last = Expr(call, reduce(call, Op::reduce_max, x, {0}, false));
    const Expr is_one = first.apply(Op::eq, last);
    const Expr below = first - 1, above = last + 1;
    first = is_one.select(below, first);
    last = is_one.select(above, last);
  }
  const Expr inside = x.apply(Op::ge, first).apply(Op::bitwise_and, x.apply(Op::le, last));
  // Each step rounded to the dtype, as in PyTorch: it decides on which side of an edge an element is.
  const auto rounded = [&](const Expr& value) {
    const DType of = x.value()->type.dtype;
    return Expr(call, call.builder().cast(call.builder().cast(value, of), compute_dtype(of)));
  };
  const Expr low_end = rounded(first);
  const Expr along = rounded(rounded(rounded(x) - low_end) * static_cast<double>(bins));
  const Expr part = rounded(along / rounded(rounded(last) - low_end));
  const Expr place(call, call.builder().cast(inside.select(part, part.constant(0)), DType::I64));
  const Expr index =
      inside.select(place.apply(Op::minimum, static_cast<double>(bins - 1)), place.constant(-1));
  Value* none = call.builder().expand(call.builder().scalar(DType::I64, 0), {Dim(bins)});
  Value* counts =
      write(call, none, 0, {index, call.builder().scalar(DType::I64, 1)}, Combine::Sum, true);
  return call.builder().cast(counts, dtype);
}

constexpr Row kRows[] = {
    {"aten.histc.default", import_histc},
    {"aten.col2im.default", in_f32<import_col2im>},
    {"aten.scatter.src", import_scatter},
    {"aten.scatter.value", import_scatter},
    {"aten.scatter.reduce", import_scatter},
    {"aten.scatter.value_reduce", import_scatter},
    {"aten.scatter_add.default", import_scatter_add},
    {"aten.scatter_reduce.two", import_scatter_reduce},
    {"aten.index_copy.default", import_index_copy},
    {"aten.index_fill.int_Scalar", import_index_fill},
    {"aten.index_fill.int_Tensor", import_index_fill},
    {"aten.index_add.default", import_index_add},
    {"aten.index_reduce.default", import_index_reduce},
    {"aten.index_put.default", import_index_put},
    {"aten._unsafe_index_put.default", import_index_put},
    {"aten.put.default", import_put},
    {"aten.embedding_bag.default", import_embedding_bag},
    {"aten.embedding_bag.padding_idx", import_embedding_bag},
    {"aten._embedding_bag.default", import_embedding_bag},
    {"aten._embedding_bag_forward_only.default", import_embedding_bag},
};

}  // namespace

Rows scatter_rows() { return kRows; }

}  // namespace kiln::import
