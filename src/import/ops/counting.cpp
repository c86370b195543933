// Counts of equal elements: how many there are of each integer, and which element there is most of.
#include "import/ops/common.h"

namespace kiln::import {
namespace {

using ir::Dim;

// How many elements have each value from 0 to the largest, or the sum of their weights. The result is as long as that says.
Value* import_bincount(Call& call) {
  constexpr int64_t kMost = int64_t{1} << 46;
  Value* x = call.tensor("self");
  call.expect(x->type.rank() == 1 && is_integer(x->type.dtype), x->type.str(),
              "rank 1, of integers");
  Value* index = checked_index(call, x, kMost, false, "bincount");
  const int64_t least = call.integer_or("minlength", 0);
  call.expect(least >= 0, "minlength " + std::to_string(least), "0 or more");
  Value* floor = call.builder().constant(ir::Literal::scalar_int(DType::I64, least - 1));
  Value* candidates =
      call.make(Op::concat, {index, call.builder().reshape(floor, {1})}, {{"axis", int64_t{0}}});
  Value* count = Expr(call, reduce(call, Op::reduce_max, candidates, {0}, false)) + 1;
  const Dim size = call.find_size(count, 0, 0, std::nullopt);
  Value* weights = call.optional_tensor("weights");
  // Of nothing PyTorch gives integers all the same, and torch.export records what weights would give.
  call.expect(weights == nullptr || !x->type.shape[0].is_constant(0), "weights of no elements",
              "elements, or no weights");
  const DType dtype = weights == nullptr                  ? DType::I64
                      : weights->type.dtype == DType::F32 ? DType::F32
                                                          : DType::F64;
  Value* source = weights == nullptr ? call.builder().reshape(call.builder().scalar(dtype, 1), {1})
                                     : call.builder().cast(weights, dtype);
  Value* none = call.builder().expand(call.builder().scalar(dtype, 0), {size});
  return call.make(Op::scatter, {none, index, source},
                   {{"axis", int64_t{0}}, {"combine", std::string("sum")}});
}

// Of each element along the last axis, sorted, how many equal ones stand in front of it, itself included.
Expr places_in_run(Call& call, Value* sorted) {
  const auto last = static_cast<int64_t>(sorted->type.rank()) - 1;
  const Expr place(call, iota(call, sorted->type.shape.back()));
  Value* before =
      call.make(Op::gather, {sorted, (place - 1).apply(Op::maximum, 0)}, {{"axis", last}});
  const Expr begins = Expr(call, sorted).apply(Op::ne, {call, before}) + place.apply(Op::eq, 0);
  Value* starts = begins.select(place, place.constant(0));
  return place + 1 - Expr(call, call.make(Op::cummax, {starts}, {{"axis", last}}));
}

// The element that there is most of along an axis, the smallest of several, and the last place of it. NaN equals nothing.
std::vector<Value*> import_mode(Call& call) {
  Value* x = call.tensor("self");
  if (x->type.rank() == 0) return {x, call.builder().scalar(DType::I64, 0)};
  const int64_t axis = call.axis_or("dim", x->type.rank(), -1);
  const auto last = static_cast<int64_t>(x->type.rank()) - 1;
  require_elements(call, x, {axis}, ir::Requirement::Kind::Index);
  const bool is_bool = x->type.dtype == DType::Bool;
  Value* moved = move_axis(call, is_bool ? call.builder().cast(x, DType::U8) : x, axis, last);
  Value* order =
      call.make(Op::argsort, {moved},
                {{"axis", last}, {"descending", false}, {"count", moved->type.shape.back()}});
  Value* sorted = call.make(Op::gather_elements, {moved, order}, {{"axis", last}});
  Value* found =
      call.make(Op::argmax, {places_in_run(call, sorted)}, {{"axis", last}, {"keepdim", true}});
  const auto taken = [&](Value* from) {
    Value* one = call.make(Op::gather_elements, {from, found}, {{"axis", last}});
    if (call.boolean_or("keepdim", false)) return move_axis(call, one, last, axis);
    return call.builder().reshape(one,
                                  ir::Shape(one->type.shape.begin(), one->type.shape.end() - 1));
  };
  return {call.builder().cast(taken(sorted), x->type.dtype), taken(order)};
}

constexpr Row kRows[] = {
    {"aten.bincount.default", import_bincount},
    {"aten.mode.default", import_mode},
};

}  // namespace

Rows counting_rows() { return kRows; }

}  // namespace kiln::import
