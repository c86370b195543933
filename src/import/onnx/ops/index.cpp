// Reading and writing elements by index, and what is decided by indices.
#include <algorithm>

#include "import/onnx/ops/common.h"
#include "import/ops/nms.h"

namespace kiln::import::onnx {
namespace {

// The index as i64, which ends the run where it is outside [-size, size).
Value* checked(NodeCall& call, Value* index, const Dim& size) {
  return checked_index(call.call(), index, size, true, call.node().op_type);
}

// The same from the start, for ops that count from there only.
Value* from_start(NodeCall& call, Value* index, const Dim& size) {
  const Elements* known = call.known(index);
  const Expr given = call.expr(checked(call, index, size));
  const bool positive = known != nullptr && std::ranges::all_of(known->integers, [](const Dim& i) {
                          return i.lower_bound() >= 0;
                        });
  if (positive) return given;
  Value* extent = call.make(Op::dim_value, {}, {{"value", size}, {"dtype", DType::I64}});
  return given.apply(Op::lt, 0).select(given + call.expr(extent), given);
}

Value* import_gather(NodeCall& call) {
  Value* x = call.input(0);
  const int64_t axis = call.axis(call.integer_or("axis", 0), x->type.rank());
  Value* index = checked(call, call.input(1), x->type.shape[static_cast<size_t>(axis)]);
  return call.make(Op::gather, {x, index}, {{"axis", axis}});
}

// x and index with equal ranks, and an index that counts from the start.
struct Along {
  Value *x, *index;
  int64_t axis;
};

Along read_along(NodeCall& call) {
  Value *x = call.input(0), *index = call.input(1);
  const int64_t axis = call.axis(call.integer_or("axis", 0), x->type.rank());
  call.expect(index->type.rank() == x->type.rank(),
              "indices of rank " + std::to_string(index->type.rank()),
              std::to_string(x->type.rank()));
  return {x, from_start(call, index, x->type.shape[static_cast<size_t>(axis)]), axis};
}

Value* import_gather_elements(NodeCall& call) {
  const Along along = read_along(call);
  return call.aten("aten.gather.default",
                   {{"self", along.x}, {"dim", Dim(along.axis)}, {"index", along.index}});
}

// The coordinates in the last axis of an index, one tensor for each of `count` axes.
std::vector<Value*> coordinates(NodeCall& call, Value* index, int64_t count) {
  const int64_t last = rank_of(index) - 1;
  const Shape shape(index->type.shape.begin(), index->type.shape.end() - 1);
  std::vector<Value*> result;
  for (int64_t i = 0; i < count; ++i)
    result.push_back(call.builder().reshape(slice(call.call(), index, last, i, 1), shape));
  return result;
}

int64_t coordinate_count(NodeCall& call, const Value* x, const Value* index, int64_t batch) {
  call.expect(index->type.rank() >= 1, "indices of rank 0", "rank 1 or more");
  const int64_t count = known_size(call, index->type.shape.back(), "the last axis of indices");
  call.expect(count >= 1 && batch + count <= rank_of(x),
              std::to_string(count) + " coordinates for rank " + std::to_string(rank_of(x)),
              "no more than axes");
  return count;
}

Value* import_gather_nd(NodeCall& call) {
  Value *x = call.input(0), *index = call.input(1);
  const int64_t batch = call.integer_or("batch_dims", 0), rank = rank_of(index);
  call.expect(batch >= 0 && batch < rank && batch < rank_of(x),
              "batch_dims " + std::to_string(batch), "fewer than axes");
  const int64_t count = coordinate_count(call, x, index, batch);
  std::vector<Value*> operands{x};
  for (int64_t i = 0; i < batch; ++i)
    operands.push_back(along_axis(call, iota(call.call(), x->type.shape[static_cast<size_t>(i)]),
                                  static_cast<size_t>(rank) - 1, i));
  const std::vector<Value*> given = coordinates(call, index, count);
  for (size_t i = 0; i < given.size(); ++i)
    operands.push_back(checked(call, given[i], x->type.shape[static_cast<size_t>(batch) + i]));
  if (operands.size() == 2) return call.make(Op::gather, operands, {{"axis", int64_t{0}}});
  return call.make(Op::gather_nd, operands, {{"axis", int64_t{0}}});
}

// ONNX's names of reductions as PyTorch's.
std::string reduction(NodeCall& call) {
  const std::string name = call.text_or("reduction", "none");
  if (name == "none") return name;
  if (name == "add") return "sum";
  if (name == "mul") return "prod";
  if (name == "max") return "amax";
  if (name == "min") return "amin";
  call.fail("reduction \"" + name + "\"", "none, add, mul, max or min");
}

Value* scatter(NodeCall& call, const Along& along, Value* source, const std::string& how) {
  AtenArguments arguments{
      {"self", along.x}, {"dim", Dim(along.axis)}, {"index", along.index}, {"src", source}};
  if (how == "none") return call.aten("aten.scatter.src", arguments);
  arguments.push_back({"reduce", how});
  return call.aten("aten.scatter_reduce.two", arguments);
}

Value* import_scatter_elements(NodeCall& call) {
  const std::string how = reduction(call);
  return scatter(call, read_along(call), call.input(2), how);
}

// The indexed axes as one: a row for each of their elements.
Value* import_scatter_nd(NodeCall& call) {
  Value *x = call.input(0), *index = call.input(1), *updates = call.input(2);
  const std::string how = reduction(call);
  const int64_t count = coordinate_count(call, x, index, 0);
  const Shape shape = x->type.shape;
  const Dim rest = ir::product({shape.begin() + count, shape.end()});
  std::optional<Expr> row;
  const std::vector<Value*> given = coordinates(call, index, count);
  Dim rows = 1;
  for (size_t i = 0; i < given.size(); ++i) {
    const Expr place = call.expr(from_start(call, given[i], shape[i]));
    Value* size = call.make(Op::dim_value, {}, {{"value", shape[i]}, {"dtype", DType::I64}});
    row = row ? *row * call.expr(size) + place : place;
    rows *= shape[i];
  }
  ir::Builder& builder = call.builder();
  const Dim writes = row->value()->type.elements();
  Value* column = builder.expand(builder.reshape(*row, {writes, Dim(1)}), {writes, rest});
  Value* result = scatter(call, {builder.reshape(x, {rows, rest}), column, 0},
                          builder.reshape(updates, {writes, rest}), how);
  return builder.reshape(result, shape);
}

// values[1] where the class is the index, values[0] elsewhere and for indices out of range.
Value* import_one_hot(NodeCall& call) {
  Value *indices = call.input(0), *values = call.input(2);
  const std::vector<double> depths = call.reals(1);
  call.expect(depths.size() == 1 && depths[0] >= 0 && depths[0] < 0x1p31, "another depth",
              "one number of classes");
  const auto depth = static_cast<int64_t>(depths[0]);
  const int64_t rank = rank_of(indices) + 1;
  const int64_t axis = call.axis(call.integer_or("axis", -1), static_cast<size_t>(rank));
  const Expr given = call.expr(call.builder().cast(indices, DType::I64));
  const Expr index = given.apply(Op::lt, 0).select(given + static_cast<double>(depth), given);
  const Expr column = call.expr(unsqueeze(call.call(), index, axis));
  const Expr hit = column.apply(Op::eq, call.expr(along_axis(call, iota(call.call(), depth),
                                                             static_cast<size_t>(rank), axis)));
  const auto value = [&](int64_t i) {
    return call.expr(call.builder().reshape(slice(call.call(), values, 0, i, 1), {}));
  };
  return hit.select(value(1), value(0));
}

std::vector<Value*> import_topk(NodeCall& call) {
  Value* x = call.input(0);
  call.ignore("sorted");  // they are, whatever is asked for
  const Dim count = call.version() < 10 ? Dim(call.integer("k")) : call.dim(1);
  return call.aten_many("aten.topk.default",
                        {{"self", x},
                         {"k", count},
                         {"dim", Dim(call.integer_or("axis", -1))},
                         {"largest", call.flag_or("largest", true)}},
                        {true, true});
}

// Along an axis, or of all elements in a row.
// Elements past the end of a condition are left out.
Value* take_where(NodeCall& call, Value* x, int64_t axis, Value* condition) {
  const Dim size = x->type.shape[static_cast<size_t>(axis)];
  call.expect(
      condition->type.rank() == 1 && ir::provably_less_equal(condition->type.shape[0], size),
      "a condition beyond the size " + size.str(), "a shorter one");
  return call.make(Op::gather, {x, selected_places(call.call(), condition, 0)}, {{"axis", axis}});
}

Value* import_compress(NodeCall& call) {
  Value* x = call.input(0);
  if (!call.has("axis")) x = call.builder().reshape(x, {x->type.elements()});
  const int64_t axis = call.axis(call.integer_or("axis", 0), x->type.rank());
  if (call.known(call.input(1)) == nullptr) return take_where(call, x, axis, call.input(1));
  const std::vector<int64_t> condition = call.integers(1);
  std::vector<int64_t> indices;
  for (size_t i = 0; i < condition.size(); ++i)
    if (condition[i] != 0) indices.push_back(static_cast<int64_t>(i));
  const Dim size = x->type.shape[static_cast<size_t>(axis)];
  call.expect(indices.empty() || ir::provably_less(indices.back(), size),
              "a condition beyond the size " + size.str(), "a shorter one");
  return take(call, x, axis, indices);
}

Value* import_non_zero(NodeCall& call) {
  return call.builder().permute(call.aten("aten.nonzero.default", {{"self", call.input(0)}}),
                                {1, 0});
}

// Different rows along an axis, sorted by their elements.
UniqueElements unique_rows(NodeCall& call, Value* x, int64_t axis) {
  const std::vector<Value*> found = call.aten_many("aten.unique_dim.default",
                                                   {{"self", x},
                                                    {"dim", Dim(axis)},
                                                    {"sorted", true},
                                                    {"return_inverse", true},
                                                    {"return_counts", true}},
                                                   {true, true, true});
  const Dim rows = x->type.shape[static_cast<size_t>(axis)];
  Value* position = iota(call.call(), rows);
  Value* none = call.make(Op::dim_value, {}, {{"value", rows}, {"dtype", DType::I64}});
  Value* first = call.make(Op::scatter,
                           {call.builder().expand(none, found[2]->type.shape), found[1], position},
                           {{"axis", int64_t{0}}, {"combine", std::string("min")}});
  return {found[0], first, found[1], found[2]};
}

// In the order in which they come, `values` along the axis.
UniqueElements in_given_order(NodeCall& call, const UniqueElements& found, int64_t axis) {
  const auto order_of = [&](Value* x) {
    return call.make(Op::argsort, {x},
                     {{"axis", int64_t{0}}, {"descending", false}, {"count", x->type.shape[0]}});
  };
  const auto at = [&](Value* x, Value* index, int64_t along) {
    return call.make(Op::gather, {x, index}, {{"axis", along}});
  };
  Value* order = order_of(found.first);
  return {at(found.values, order, axis), at(found.first, order, 0),
          at(order_of(order), found.inverse, 0), at(found.counts, order, 0)};
}

std::vector<Value*> import_unique(NodeCall& call) {
  Value* x = call.input(0);
  const bool of_rows = call.has("axis");
  const int64_t axis = of_rows ? call.axis(call.integer("axis"), x->type.rank()) : 0;
  UniqueElements found = of_rows ? unique_rows(call, x, axis) : unique_elements(call.call(), x);
  if (!call.flag_or("sorted", true)) found = in_given_order(call, found, axis);
  std::vector<Value*> results{found.values, found.first, found.inverse, found.counts};
  results.resize(call.output_count());
  return results;
}

Value* import_trilu(NodeCall& call) {
  Value* x = call.input(0);
  const bool upper = call.flag_or("upper", true);
  call.expect(x->type.rank() >= 2, "rank " + std::to_string(x->type.rank()), "2 or more");
  const size_t rank = x->type.rank();
  const Expr rows =
      call.expr(unsqueeze(call.call(), iota(call.call(), x->type.shape[rank - 2]), 1));
  Expr diagonal = rows;
  if (Value* k = call.optional_input(1)) diagonal = rows + call.expr(call.builder().reshape(k, {}));
  const Expr columns = call.expr(iota(call.call(), x->type.shape[rank - 1]));
  const Expr kept = columns.apply(upper ? Op::ge : Op::le, diagonal);
  return kept.select(call.expr(x), call.expr(call.builder().scalar(x->type.dtype, 0)));
}

// The first `length` steps of each sequence backwards.
Value* import_reverse_sequence(NodeCall& call) {
  Value* x = call.input(0);
  const size_t rank = x->type.rank();
  const int64_t batch = call.axis(call.integer_or("batch_axis", 1), rank);
  const int64_t time = call.axis(call.integer_or("time_axis", 0), rank);
  const Expr length =
      call.expr(along_axis(call, call.builder().cast(call.input(1), DType::I64), rank, batch));
  const Expr step = call.expr(
      along_axis(call, iota(call.call(), x->type.shape[static_cast<size_t>(time)]), rank, time));
  const Expr source = step.apply(Op::lt, length).select(length - 1 - step, step);
  Value* index = call.builder().expand(source, x->type.shape);
  return call.make(Op::gather_elements, {x, index}, {{"axis", time}});
}

Value* import_grid_sample(NodeCall& call) {
  const std::string mode = call.text_or("mode", "linear");
  const std::string padding = call.text_or("padding_mode", "zeros");
  const auto number = [&](const std::string& name, std::initializer_list<std::string_view> names,
                          const char* what) {
    const auto* found = std::find(names.begin(), names.end(), name);
    call.expect(found != names.end(), std::string(what) + " \"" + name + "\"", "one that ONNX has");
    return Dim(found - names.begin());
  };
  const std::string plain = mode == "bilinear" ? "linear" : mode == "bicubic" ? "cubic" : mode;
  return call.aten("aten.grid_sampler.default",
                   {{"input", call.input(0)},
                    {"grid", call.input(1)},
                    {"interpolation_mode", number(plain, {"linear", "nearest", "cubic"}, "mode")},
                    {"padding_mode", number(padding, {"zeros", "border", "reflection"}, "padding")},
                    {"align_corners", call.flag_or("align_corners", false)}});
}

Value* import_col2im(NodeCall& call) {
  Value* x = call.input(0);
  const std::vector<int64_t> image = call.integers(1), block = call.integers(2);
  call.expect(image.size() == 2 && block.size() == 2,
              "an image of " + std::to_string(image.size()) + " axes", "2");
  const std::vector<int64_t> pads = call.integers_or("pads", {0, 0, 0, 0});
  call.expect(pads.size() == 4 && pads[0] == pads[2] && pads[1] == pads[3],
              "pads that differ before and after", "equal ones");
  return call.aten("aten.col2im.default", {{"self", x},
                                           {"output_size", image},
                                           {"kernel_size", block},
                                           {"dilation", call.integers_or("dilations", {1, 1})},
                                           {"padding", std::vector<int64_t>{pads[0], pads[1]}},
                                           {"stride", call.integers_or("strides", {1, 1})}});
}

// boxes [batches, n, 4] and scores [batches, classes, n] -> i64[selected, 3]: batch, class and box, by falling scores.
Value* import_non_max_suppression(NodeCall& call) {
  Value *boxes = call.input(0), *scores = call.input(1);
  const bool by_center = call.flag_or("center_point_box", false);
  call.expect(boxes->type.rank() == 3 && scores->type.rank() == 3,
              boxes->type.str() + " and " + scores->type.str(), "boxes and scores of rank 3");
  const Shape shape = scores->type.shape;  // batches, classes, n
  const int64_t most = call.has_input(2) ? call.integers(2).at(0) : 0;
  const double overlap = call.has_input(3) ? call.reals(3).at(0) : 0;

  Value* order = call.make(Op::argsort, {scores},
                           {{"axis", int64_t{2}}, {"descending", true}, {"count", shape[2]}});
  const auto in_order = [&](Value* x) {
    return call.expr(call.make(Op::gather_elements, {x, order}, {{"axis", int64_t{2}}}));
  };
  const auto corner = [&](int64_t index) {
    Value* one = call.builder().reshape(slice(call.call(), boxes, 2, index, 1),
                                        {boxes->type.shape[0], 1, shape[2]});
    return in_order(call.builder().expand(one, shape));
  };
  const Expr a = corner(0), b = corner(1), c = corner(2), d = corner(3);
  Boxes sides;
  if (by_center) {
    sides = {a - c / 2, b - d / 2, a + c / 2, b + d / 2};
  } else {  // any two corners that face each other
    sides = {b.apply(Op::minimum, d), a.apply(Op::minimum, c), b.apply(Op::maximum, d),
             a.apply(Op::maximum, c)};
  }
  sides.area = box_area(call.call(), sides);
  Expr kept = call.expr(full(call, shape, DType::Bool, 1));
  if (call.has_input(4)) {
    const Expr least = call.expr(call.builder().reshape(call.input(4), {}));
    kept = in_order(scores).apply(Op::gt, least);
  }
  kept = call.expr(surviving(call.call(), sides, kept, overlap));
  const Expr number = call.expr(
      call.make(Op::cumsum, {call.builder().cast(kept, DType::I64)}, {{"axis", int64_t{2}}}));
  kept = kept.apply(Op::bitwise_and, number.apply(Op::le, static_cast<double>(most)));
  Value* rows = call.aten("aten.nonzero.default", {{"self", kept.value()}});
  const auto column = [&](int64_t index) {
    return call.builder().reshape(slice(call.call(), rows, 1, index, 1), {rows->type.shape[0]});
  };
  Value* box =
      call.make(Op::gather_nd, {order, column(0), column(1), column(2)}, {{"axis", int64_t{0}}});
  return call.make(Op::concat, {slice(call.call(), rows, 1, 0, 2), unsqueeze(call.call(), box, 1)},
                   {{"axis", int64_t{1}}});
}

constexpr OperatorRow kRows[] = {
    {"Col2Im", import_col2im},
    {"Compress", import_compress},
    {"Gather", import_gather},
    {"GatherElements", import_gather_elements},
    {"GatherND", import_gather_nd},
    {"GridSample", import_grid_sample},
    {"NonMaxSuppression", import_non_max_suppression},
    {"NonZero", import_non_zero},
    {"OneHot", import_one_hot},
    {"ReverseSequence", import_reverse_sequence},
    {"Scatter", import_scatter_elements},
    {"ScatterElements", import_scatter_elements},
    {"ScatterND", import_scatter_nd},
    {"TopK", import_topk},
    {"Trilu", import_trilu},
    {"Unique", import_unique},
};

}  // namespace

OperatorRows index_operators() { return kRows; }

}  // namespace kiln::import::onnx
