// Reading elements by index.
#include <algorithm>

#include "import/ops/common.h"

namespace kiln::import {
namespace {

using ir::Dim;

// Which indices an operator accepts along an axis: others are an error when the model runs.
enum class Accepts { FromStart, FromEitherEnd };

Value* checked(Call& call, Value* index, const Dim& size, Accepts accepts, const char* name) {
  return checked_index(call, index, size, accepts == Accepts::FromEitherEnd, name);
}

Value* take(Call& call, Value* x, Value* index, int64_t axis) {
  return call.make(Op::gather, {x, as_index(call, index)}, {{"axis", axis}});
}

Value* import_embedding(Call& call) {
  Value* weight = call.tensor("weight");
  Value* index =
      checked(call, call.tensor("indices"), weight->type.shape[0], Accepts::FromStart, "embedding");
  return take(call, weight, index, 0);
}

// The table, whose rows that are taken are scaled down where their norm is larger than `max_norm`.
Value* import_embedding_renorm(Call& call) {
  Value* table = call.tensor("self");
  const Dim rows = table->type.shape[0];
  Value* given = call.tensor("indices");
  given = call.builder().reshape(given, {given->type.elements(), 1});
  Value* index = checked(call, given, rows, Accepts::FromStart, "embedding_renorm");
  Value* none = call.builder().expand(call.builder().scalar(DType::Bool, 0), {rows, 1});
  Value* yes = call.builder().reshape(call.builder().scalar(DType::Bool, 1), {1, 1});
  const Expr taken(call, call.make(Op::scatter, {none, index, yes},
                                   {{"axis", int64_t{0}}, {"combine", std::string("replace")}}));
  const Expr x(call, table), most = x.constant(call.real_or("max_norm", 0));
  const Expr norm = vector_norm(call, x.apply(Op::abs), call.real_or("norm_type", 2), {1}, true);
  const Expr scaled = x * (most / (norm + 1e-7));
  return (taken * norm.apply(Op::gt, most)).select(scaled, x);
}

Value* import_index_select(Call& call) {
  Value *x = call.tensor("self"), *index = call.tensor("index");
  const int64_t axis = call.axis("dim", x->type.rank());
  const Dim size = x->type.rank() == 0 ? Dim(1) : x->type.shape[axis];
  index = checked(call, index, size, Accepts::FromStart, "index_select");
  if (x->type.rank() == 0) {
    Value* only = take(call, call.builder().reshape(x, {1}), index, 0);
    return call.builder().reshape(only, {});
  }
  if (index->type.rank() == 0) index = call.builder().reshape(index, {1});
  return take(call, x, index, axis);
}

// torch.gather takes an index that is smaller than x along the other axes: those parts of x are not
// used.
Value* import_gather(Call& call) {
  Value *x = call.tensor("self"), *const given = call.tensor("index");
  const int64_t indexed = call.axis("dim", x->type.rank());
  const Dim size = x->type.rank() == 0 ? Dim(1) : x->type.shape[indexed];
  Value* index = checked(call, given, size, Accepts::FromStart, "gather");
  if (x->type.rank() == 0 || index->type.rank() == 0) {
    Value* column = call.builder().reshape(x, {x->type.elements()});
    Value* flat = take(call, column, call.builder().reshape(index, {index->type.elements()}), 0);
    return call.builder().reshape(flat, index->type.shape);
  }
  if (index->type.rank() != x->type.rank()) {
    expect_empty(call, index, x->type.rank());
    return call.builder().cast(index, x->type.dtype);
  }
  const int64_t axis = call.axis("dim", x->type.rank());
  for (size_t i = 0; i < x->type.rank(); ++i) {
    if (static_cast<int64_t>(i) == axis || x->type.shape[i] == index->type.shape[i]) continue;
    require_part(call, given, x, static_cast<int64_t>(i));
    x = slice(call, x, static_cast<int64_t>(i), 0, index->type.shape[i]);
  }
  return call.make(Op::gather_elements, {x, index}, {{"axis", axis}});
}

Value* import_take_along_dim(Call& call) {
  Value *x = call.tensor("self"), *index = as_index(call, call.tensor("indices"));
  if (!call.has("dim")) {  // of all elements, none counted from the end
    const ir::Dim size = x->type.elements();
    index = call.builder().reshape(index, {index->type.elements()});
    index = checked_index(call, index, size, false, call.operation());
    return call.make(Op::gather_elements, {call.builder().reshape(x, {size}), index},
                     {{"axis", int64_t{0}}});
  }
  const int64_t axis = call.axis("dim", x->type.rank());
  ir::Shape other_x = x->type.shape, other_index = index->type.shape;
  call.expect(other_x.size() == other_index.size(), "ranks that differ", "equal ranks");
  other_x[axis] = other_index[axis] = 1;
  ir::Shape shape = ir::broadcast_shapes(other_x, other_index), index_shape = shape;
  shape[axis] = x->type.shape[axis];
  index_shape[axis] = index->type.shape[axis];
  // PyTorch accepts any index here: it counts modulo the size.
  Value* size =
      call.make(Op::dim_value, {}, {{"value", x->type.shape[axis]}, {"dtype", DType::I64}});
  index = Expr(call, index).apply(Op::remainder, {call, size});
  return call.make(Op::gather_elements,
                   {call.builder().expand(x, shape), call.builder().expand(index, index_shape)},
                   {{"axis", axis}});
}

bool is_mask(const Value* index) { return index != nullptr && index->type.dtype == DType::Bool; }

// The axes of x from `first` on that a mask stands for.
ir::Shape masked_shape(Call& call, const Value* x, size_t first, const Value* mask) {
  const ir::Shape& shape = x->type.shape;
  const size_t rank = mask->type.rank();
  call.expect(rank >= 1 && first + rank <= shape.size(),
              "a mask of shape " + shape_text(mask->type.shape) + " for " + shape_text(shape),
              "sizes of x");
  for (size_t i = 0; i < rank; ++i)
    call.expect(ir::provably_equal(shape[first + i], mask->type.shape[i]),
                "a mask of shape " + shape_text(mask->type.shape) + " for " + shape_text(shape),
                "sizes of x");
  return mask->type.shape;
}

// x[.., mask, ..], with no other index: its axes become one.
Value* take_masked(Call& call, Value* x, const std::vector<Value*>& given) {
  const auto at = static_cast<size_t>(std::ranges::find_if(given, is_mask) - given.begin());
  const ir::Shape masked = masked_shape(call, x, at, given[at]);
  ir::Shape shape = x->type.shape;
  const auto begin = shape.begin() + static_cast<std::ptrdiff_t>(at);
  shape.erase(begin, begin + static_cast<std::ptrdiff_t>(masked.size()));
  shape.insert(shape.begin() + static_cast<std::ptrdiff_t>(at), ir::product(masked));
  return take(call, call.builder().reshape(x, shape), selected_places(call, given[at], at),
              static_cast<int64_t>(at));
}

// A mask beside other indices is the positions of its true elements, one index for each axis.
std::vector<Value*> replace_mask(Call& call, Value* x, const std::vector<Value*>& given) {
  call.expect(std::ranges::count_if(given, is_mask) == 1, "several masks", "one");
  std::vector<Value*> result;
  const auto first = std::ranges::find_if(given, [](Value* index) { return index != nullptr; });
  for (size_t i = 0; i < given.size(); ++i) {
    if (!is_mask(given[i])) {
      result.push_back(given[i]);
      continue;
    }
    const ir::Shape masked = masked_shape(call, x, result.size(), given[i]);
    Value* places = selected_places(call, given[i], static_cast<size_t>(first - given.begin()));
    for (Value* position : positions_of(call, places, masked)) result.push_back(position);
  }
  return result;
}

// x[:, i, j, :] and the like; `checks` unless the caller knows that they are in bounds. Indexed
// axes that are not neighbours come first in the result: so they are moved there.
template <bool checks>
Value* import_index(Call& call) {
  Value* x = call.tensor("self");
  std::vector<Value*> given = call.tensors("indices");
  call.expect(given.size() <= x->type.rank(), std::to_string(given.size()) + " indices",
              "at most one per axis");
  if (std::ranges::any_of(given, is_mask)) {
    if (std::ranges::count_if(given, [](Value* index) { return index != nullptr; }) == 1)
      return take_masked(call, x, given);
    given = replace_mask(call, x, given);
  }
  std::vector<int64_t> axes;
  std::vector<Value*> operands{nullptr};
  for (size_t i = 0; i < given.size(); ++i) {
    if (given[i] == nullptr) continue;
    refuse_byte_mask(call, given[i]);
    axes.push_back(static_cast<int64_t>(i));
    operands.push_back(
        checks ? checked(call, given[i], x->type.shape[i], Accepts::FromEitherEnd, "index")
               : as_index(call, given[i]));
  }
  if (axes.empty()) return x;
  int64_t first = axes[0];
  const bool adjacent = axes.back() - first + 1 == static_cast<int64_t>(axes.size());
  if (!adjacent) {
    std::vector<int64_t> order = axes;
    for (int64_t i = 0; i < static_cast<int64_t>(x->type.rank()); ++i) {
      if (std::ranges::find(axes, i) == axes.end()) order.push_back(i);
    }
    x = call.builder().permute(x, order);
    first = 0;
  }
  if (axes.size() == 1) return take(call, x, operands[1], first);
  operands[0] = x;
  return call.make(Op::gather_nd, operands, {{"axis", first}});
}

// The axis in windows: element i of window w is w * step + i. The window axis comes last.
Value* import_unfold(Call& call) {
  Value* x = call.tensor("self");
  const int64_t axis = call.axis("dimension", x->type.rank());
  const int64_t size = call.integer("size"), step = call.integer("step");
  call.expect(step >= 1 && size >= 0,
              "size " + std::to_string(size) + " step " + std::to_string(step),
              "a size of 0 or more, a step of 1 or more");
  if (x->type.rank() == 0) return slice(call, call.builder().reshape(x, {1}), 0, 0, size);
  const Dim windows = ir::floordiv(x->type.shape[axis] - size, step) + 1;
  const Expr start(call, unsqueeze(call, iota(call, windows), 1));
  Value* index = start * static_cast<double>(step) + Expr(call, iota(call, size));
  return move_axis(call, take(call, x, index, axis), axis + 1,
                   static_cast<int64_t>(x->type.rank()));
}

// Images to blocks: [N, C * kernel, blocks], of images with zeros around them.
Value* import_im2col(Call& call) {
  Value* x = call.tensor("self");
  const auto pair = [&](std::string_view name) { return per_axis(call, call.integers(name), 2); };
  const std::vector<int64_t> kernel = pair("kernel_size"), dilation = pair("dilation"),
                             padding = pair("padding"), stride = pair("stride");
  const bool batched = x->type.rank() == 4;
  if (!batched) x = unsqueeze(call, x, 0);
  const std::vector<Dim> around{0, 0, padding[0], padding[1]};
  x = pad_constant(call, x, around, around);
  const Dim batch = x->type.shape[0], channels = x->type.shape[1];
  Dim blocks = 1;
  for (size_t i = 0; i < 2; ++i) {  // axis 2, and then 4, each becomes [kernel, blocks]
    const auto axis = static_cast<int64_t>(2 + 2 * i);
    const Dim count =
        ir::floordiv(x->type.shape[axis] - dilation[i] * (kernel[i] - 1) - 1, stride[i]) + 1;
    const Expr inside(call, unsqueeze(call, iota(call, kernel[i]), 1));
    const Expr start(call, iota(call, count));
    x = take(call, x,
             inside * static_cast<double>(dilation[i]) + start * static_cast<double>(stride[i]),
             axis);
    blocks *= count;
  }
  x = call.builder().permute(x, {0, 1, 2, 4, 3, 5});
  x = call.builder().reshape(x, {batch, channels * (kernel[0] * kernel[1]), blocks});
  return batched ? x : call.builder().reshape(x, {x->type.shape[1], blocks});
}

// Elements whose two indices differ by the offset. `order`: the two axes come last.
struct Diagonal {
  std::vector<int64_t> order;
  int64_t below = 0, right = 0;  // where it begins
  Dim size;
};

Diagonal read_diagonal(Call& call, const Value* x) {
  const size_t rank = x->type.rank();
  call.expect(rank >= 2, "rank " + std::to_string(rank), "2 or more");
  const int64_t first = call.axis_or("dim1", rank, 0), second = call.axis_or("dim2", rank, 1);
  const int64_t offset = call.integer_or("offset", 0);
  call.expect(first != second, "equal dims", "two axes");
  Diagonal result{{}, std::max<int64_t>(0, -offset), std::max<int64_t>(0, offset), 0};
  for (int64_t i = 0; i < static_cast<int64_t>(rank); ++i) {
    if (i != first && i != second) result.order.push_back(i);
  }
  result.order.insert(result.order.end(), {first, second});
  result.size = ir::max(
      0, ir::min(x->type.shape[first] - result.below, x->type.shape[second] - result.right));
  return result;
}

// The diagonal's axis comes last.
Value* import_diagonal(Call& call) {
  Value* x = call.tensor("self");
  const Diagonal diagonal = read_diagonal(call, x);
  const Expr index(call, iota(call, diagonal.size));
  return call.make(
      Op::gather_nd,
      {call.builder().permute(x, diagonal.order), index + static_cast<double>(diagonal.below),
       index + static_cast<double>(diagonal.right)},
      {{"axis", static_cast<int64_t>(x->type.rank()) - 2}});
}

// The diagonal's elements, one in each row, in all columns; kept where the diagonal is.
Value* import_diagonal_scatter(Call& call) {
  Value* x = call.tensor("self");
  const Diagonal diagonal = read_diagonal(call, x);
  const size_t rank = x->type.rank();
  Value* rows = call.builder().permute(x, diagonal.order);
  ir::Shape shape = rows->type.shape;
  const Dim height = shape[rank - 2], width = shape[rank - 1];
  shape.pop_back();
  shape[rank - 2] = diagonal.size;
  Value* source =
      call.builder().expand(call.builder().cast(call.tensor("src"), x->type.dtype), shape);
  std::vector<Dim> before(rank - 1, 0), after(rank - 1, 0);
  before.back() = diagonal.below;
  after.back() = height - diagonal.size - diagonal.below;
  source = pad_constant(call, source, before, after);
  const Expr row(call, unsqueeze(call, iota(call, height), 1)), column(call, iota(call, width));
  const Expr is_diagonal =
      (column - row)
          .apply(Op::eq, static_cast<double>(diagonal.right - diagonal.below))
          .apply(Op::bitwise_and, row.apply(Op::ge, static_cast<double>(diagonal.below)));
  const Expr result = is_diagonal.select(
      {call, unsqueeze(call, source, static_cast<int64_t>(rank) - 1)}, {call, rows});
  std::vector<int64_t> back(rank);
  for (size_t i = 0; i < rank; ++i) back[diagonal.order[i]] = static_cast<int64_t>(i);
  return call.builder().permute(result, back);
}

// 1 where the class is the index.
Value* import_one_hot(Call& call) {
  Value* x = call.tensor("self");
  const int64_t classes = call.integer_or("num_classes", -1);
  call.expect(classes > 0, "no num_classes", "a number (else it depends on the data)");
  Value* known = checked(call, x, classes, Accepts::FromStart, "one_hot");
  const Expr index(call, unsqueeze(call, known, static_cast<int64_t>(x->type.rank())));
  return call.builder().cast(index.apply(Op::eq, {call, iota(call, classes)}), DType::I64);
}

constexpr Row kRows[] = {
    {"aten.embedding.default", import_embedding},
    {"aten.embedding_renorm.default", in_f32<import_embedding_renorm>},
    {"aten.index.Tensor", import_index<true>},
    {"aten._unsafe_index.Tensor", import_index<false>},
    {"aten.index_select.default", import_index_select},
    {"aten.gather.default", import_gather},
    {"aten.take_along_dim.default", import_take_along_dim},
    {"aten.im2col.default", import_im2col},
    {"aten.unfold.default", import_unfold},
    {"aten.unfold_copy.default", import_unfold},
    {"aten.diagonal.default", import_diagonal},
    {"aten.diagonal_copy.default", import_diagonal},
    {"aten.diagonal_scatter.default", import_diagonal_scatter},
    {"aten.one_hot.default", import_one_hot},
};

}  // namespace

Rows index_rows() { return kRows; }

}  // namespace kiln::import
