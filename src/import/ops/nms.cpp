// Non-maximum suppression: of boxes in the order of their scores, those that overlap none before them that stayed. A loop over
// the boxes, each of which removes what it overlaps.
#include "import/ops/nms.h"

#include "import/ops/common.h"
#include "import/repeat.h"

namespace kiln::import {
namespace {

using ir::Dim;

Value* dim_value(Call& call, const Dim& dim) {
  return call.make(Op::dim_value, {}, {{"value", dim}, {"dtype", DType::I64}});
}

// a * b as PyTorch rounds it, whatever is added to it: a product of f32 is exact in f64.
Expr product(Call& call, const Expr& a, const Expr& b) {
  const auto wide = [&](const Expr& x) { return Expr(call, call.builder().cast(x, DType::F64)); };
  return {call, call.builder().cast(wide(a) * wide(b), a.value()->type.dtype)};
}

// Column `index` of [.., n], as [.., 1].
Expr column(Call& call, Value* x, Value* index) {
  return {call, call.make(Op::gather, {x, call.builder().reshape(index, {1})},
                          {{"axis", static_cast<int64_t>(x->type.rank()) - 1}})};
}

// Whether the box at `index` overlaps each of the boxes by more than the threshold.
Expr overlaps(Call& call, const Boxes& boxes, Value* index, double threshold) {
  const auto side = [&](Value* low, Value* high) {
    const Expr begin = Expr(call, low).apply(Op::maximum, column(call, low, index));
    const Expr end = Expr(call, high).apply(Op::minimum, column(call, high, index));
    return (end - begin).apply(Op::maximum, 0);
  };
  const Expr common = product(call, side(boxes.left, boxes.right), side(boxes.top, boxes.bottom));
  const Expr areas(call, boxes.area);
  const Expr share = common / (column(call, boxes.area, index) + areas - common);
  return {call, call.make(Op::gt, {call.builder().cast(share, DType::F64),
                                   call.builder().scalar(DType::F64, threshold)})};
}

}  // namespace

Value* box_area(Call& call, const Boxes& boxes) {
  return product(call, Expr(call, boxes.right) - Expr(call, boxes.left),
                 Expr(call, boxes.bottom) - Expr(call, boxes.top));
}

Value* surviving(Call& call, const Boxes& boxes, Value* kept, double threshold) {
  const Dim count = kept->type.shape.back();
  Repeat repeat(call.builder());
  Value* first = call.builder().scalar(DType::I64, 0);
  const std::vector<Value*> carried = repeat.carry({first, kept});
  const std::vector<Value*> used =
      repeat.use({boxes.left, boxes.top, boxes.right, boxes.bottom, boxes.area});
  Call inner(call, repeat.builder());
  const Expr index(inner, carried[0]), stays(inner, carried[1]);
  const Expr behind(inner, inner.make(Op::gt, {iota(inner, count), index}));
  const Expr gone = overlaps(inner, {used[0], used[1], used[2], used[3], used[4]}, index, threshold)
                        .apply(Op::bitwise_and, behind)
                        .apply(Op::bitwise_and, column(inner, stays, index));
  const Expr next = index + 1;
  Value* again = inner.make(Op::lt, {next, dim_value(inner, count)});
  Value* any = call.make(Op::gt, {dim_value(call, count), call.builder().scalar(DType::I64, 0)});
  return repeat.finish(any, again,
                       {next, stays.apply(Op::bitwise_and, gone.apply(Op::logical_not))})[1];
}

namespace {

// torchvision::nms(boxes[n, 4], scores[n], iou_threshold) -> i64[kept]
Value* import_nms(Call& call) {
  Value *boxes = call.tensor("dets"), *scores = call.tensor("scores");
  call.expect(boxes->type.rank() == 2 && ir::provably_equal(boxes->type.shape[1], 4),
              boxes->type.str(), "boxes of 4 numbers");
  call.expect(boxes->type.dtype == DType::F32 || boxes->type.dtype == DType::F64,
              "boxes of " + std::string(dtype_name(boxes->type.dtype)), "f32 or f64");
  const Dim count = boxes->type.shape[0];
  Value* order = call.make(Op::argsort, {scores},
                           {{"axis", int64_t{0}}, {"descending", true}, {"count", count}});
  Value* sorted = call.make(Op::gather, {boxes, order}, {{"axis", int64_t{0}}});
  const auto side = [&](int64_t index) {
    return call.builder().reshape(slice(call, sorted, 1, index, 1), {count});
  };
  Boxes sides{side(0), side(1), side(2), side(3)};
  sides.area = box_area(call, sides);
  Value* all = call.make(Op::full, {},
                         {{"shape", ir::Shape{count}}, {"dtype", DType::Bool}, {"value", 1.0}});
  Value* kept = surviving(call, sides, all, call.real_or("iou_threshold", 0));
  return call.make(Op::gather, {order, selected_places(call, kept, 0)}, {{"axis", int64_t{0}}});
}

constexpr Row kRows[] = {{"torchvision.nms.default", import_nms}};

}  // namespace

Rows nms_rows() { return kRows; }

}  // namespace kiln::import
