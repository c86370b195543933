// Ops that move elements without computing on them.
#include <algorithm>

#include "ir/builder.h"
#include "ir/infer.h"
#include "support/error.h"

namespace kiln::ir {
namespace {

Type infer_reshape(const Call& call) {
  const Shape& shape = call.dims("shape");
  call.expect(provably_equal(product(call.shape(0)), product(shape)),
              shape_str(shape) + " from " + shape_str(call.shape(0)),
              "the same number of elements");
  return {call.type(0).dtype, shape};
}

Type infer_permute(const Call& call) {
  const std::vector<int64_t>& axes = call.integers("axes");
  call.expect(axes.size() == call.type(0).rank(), "axes " + list_str(axes),
              "each axis of " + shape_str(call.shape(0)));
  call.expect_axes(axes, call.type(0).rank(), false);
  Type result{call.type(0).dtype, {}};
  for (int64_t axis : axes) result.shape.push_back(call.shape(0)[axis]);
  return result;
}

Type infer_expand(const Call& call) {
  const Shape &from = call.shape(0), &to = call.dims("shape");
  const std::string got = shape_str(from) + " to " + shape_str(to);
  call.expect(to.size() >= from.size(), got, "no fewer axes");
  for (size_t i = 0; i < from.size(); ++i) {
    const Dim& target = to[to.size() - from.size() + i];
    call.expect(from[i].is_constant(1) || provably_equal(from[i], target), got,
                "sizes that are equal or 1");
  }
  return {call.type(0).dtype, to};
}

Type infer_slice(const Call& call) {
  Type result = call.type(0);
  const int64_t axis = call.integer("axis"), step = call.integer("step");
  call.expect_axis(axis, result.rank());
  call.expect(step >= 1, "step " + std::to_string(step), "1 or more");
  const Dim &start = call.attr<Dim>("start"), &size = call.attr<Dim>("size");
  const Dim last = start + (size - 1) * step;
  const bool outside = start.upper_bound() < 0 || size.upper_bound() < 0 ||
                       (size.lower_bound() >= 1 && provably_less_equal(result.shape[axis], last));
  call.expect(!outside,
              "start " + start.str() + " size " + size.str() + " step " + std::to_string(step) +
                  " of " + result.shape[axis].str(),
              "a range in bounds");
  result.shape[axis] = size;
  return result;
}

Type infer_pad(const Call& call) {
  Type result = call.type(0);
  const std::string& mode = call.attr<std::string>("mode");
  call.expect(mode == "constant" || mode == "reflect" || mode == "replicate",
              "mode \"" + mode + "\"", "constant, reflect or replicate");
  const std::vector<Dim>&before = call.dims("before"), &after = call.dims("after");
  call.expect(before.size() == result.rank() && after.size() == result.rank(),
              std::to_string(before.size()) + " and " + std::to_string(after.size()) + " sizes",
              "one for each axis of " + shape_str(result.shape));
  call.expect_held(call.attr<double>("value"), result.dtype);
  for (size_t i = 0; i < result.rank(); ++i) {
    result.shape[i] += before[i] + after[i];
    call.expect(result.shape[i].upper_bound() >= 0, "a result of size " + result.shape[i].str(),
                "0 or more");
  }
  return result;
}

Type infer_concat(const Call& call) {
  call.expect_same_dtypes();
  Type result = call.type(0);
  const int64_t axis = call.integer("axis");
  call.expect_axis(axis, result.rank());
  for (size_t i = 1; i < call.count(); ++i) {
    call.expect(call.has(i), "no operand " + std::to_string(i), "a value");
    call.expect_rank(i, result.rank());
    for (size_t k = 0; k < result.rank(); ++k) {
      if (static_cast<int64_t>(k) == axis) continue;
      call.expect_equal(result.shape[k], call.shape(i)[k],
                        "shapes " + shape_str(call.shape(0)) + " and " + shape_str(call.shape(i)),
                        "equal sizes except along axis " + std::to_string(axis));
    }
    result.shape[axis] += call.shape(i)[axis];
  }
  return result;
}

void expect_index(const Call& call, size_t i) {
  call.expect(call.has(i), "no operand " + std::to_string(i), "a value");
  call.expect(call.type(i).dtype == DType::I64,
              "an index of " + std::string(dtype_name(call.type(i).dtype)), "i64");
}

// The axes from `axis` to `axis + count` replaced by those of the index.
Type replace_axes(const Call& call, int64_t axis, size_t count, const Shape& index) {
  const Shape& x = call.shape(0);
  call.expect(axis >= 0 && axis + count <= x.size(),
              std::to_string(count) + " indices at axis " + std::to_string(axis),
              "axes of " + shape_str(x));
  Type result{call.type(0).dtype, Shape(x.begin(), x.begin() + axis)};
  result.shape.insert(result.shape.end(), index.begin(), index.end());
  result.shape.insert(result.shape.end(), x.begin() + axis + count, x.end());
  return result;
}

Type infer_gather(const Call& call) {
  expect_index(call, 1);
  const int64_t axis = call.integer("axis");
  if (call.op() == Op::gather) return replace_axes(call, axis, 1, call.shape(1));
  call.expect_axis(axis, call.type(0).rank());
  call.expect_rank(1, call.type(0).rank());
  return {call.type(0).dtype, call.shape(1)};
}

Type infer_gather_nd(const Call& call) {
  Shape index;
  for (size_t i = 1; i < call.count(); ++i) {
    expect_index(call, i);
    index = broadcast_shapes(index, call.shape(i));
  }
  return replace_axes(call, call.integer("axis"), call.count() - 1, index);
}

}  // namespace

Type infer_move(const Call& call) {
  switch (call.op()) {
    case Op::reshape:
      return infer_reshape(call);
    case Op::permute:
      return infer_permute(call);
    case Op::expand:
      return infer_expand(call);
    case Op::slice:
      return infer_slice(call);
    case Op::flip:
      call.expect_axes(call.integers("axes"), call.type(0).rank(), false);
      return call.type(0);
    case Op::pad:
      return infer_pad(call);
    case Op::concat:
      return infer_concat(call);
    case Op::gather:
    case Op::gather_elements:
      return infer_gather(call);
    case Op::gather_nd:
      return infer_gather_nd(call);
    default:
      break;
  }
  KILN_CHECK(false, "not a move: " + std::string(op_name(call.op())));
  return {};
}

}  // namespace kiln::ir
