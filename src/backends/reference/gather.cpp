// Reading elements by index.
#include "backends/reference/tensor.h"

namespace kiln::reference {
namespace {

using ir::Op;

// An index in [-size, size) as one in [0, size).
int64_t checked(const Call& call, int64_t index, int64_t size) {
  if (index < -size || index >= size) {
    call.fail("index " + std::to_string(index),
              std::to_string(-size) + " to " + std::to_string(size - 1));
  }
  return index < 0 ? index + size : index;
}

// The `count` axes of x from `axis` on are replaced by those of the index.
Sizes replace_axes(const Sizes& x, int64_t axis, size_t count, const Sizes& index) {
  Sizes shape(x.begin(), x.begin() + axis);
  shape.insert(shape.end(), index.begin(), index.end());
  shape.insert(shape.end(), x.begin() + axis + static_cast<int64_t>(count), x.end());
  return shape;
}

// gather is gather_nd with one index.
Literal gather_nd(const Call& call) {
  const Sizes& x = call.shape(0);
  const Sizes strides = row_major_strides(x);
  const int64_t axis = call.integer("axis");
  const size_t count = call.inputs.size() - 1;
  Sizes index_shape;
  for (size_t i = 1; i <= count; ++i) index_shape = broadcast(index_shape, call.shape(i));
  std::vector<int64_t> offsets(product(index_shape), 0);
  for (size_t i = 1; i <= count; ++i) {
    const std::vector<int64_t> index = load<int64_t>(call.input(i));
    const size_t indexed = axis + i - 1;
    Walk at(index_shape, broadcast_strides(call.shape(i), index_shape));
    for (int64_t& offset : offsets) {
      offset += checked(call, index[at.offset()], x[indexed]) * strides[indexed];
      at.next();
    }
  }
  const Sizes index_strides = row_major_strides(index_shape);
  const auto source = [&](const Sizes& index) {
    int64_t which = 0, offset = 0;
    for (size_t i = 0; i < index_shape.size(); ++i) which += index[axis + i] * index_strides[i];
    for (int64_t i = 0; i < axis; ++i) offset += index[i] * strides[i];
    for (size_t i = axis + count; i < x.size(); ++i)
      offset += index[i - count + index_shape.size()] * strides[i];
    return offset + offsets[which];
  };
  return rearrange(call.input(0), replace_axes(x, axis, count, index_shape), source);
}

Literal gather_elements(const Call& call) {
  const Sizes &x = call.shape(0), &shape = call.shape(1);
  const Sizes strides = row_major_strides(x), index_strides = row_major_strides(shape);
  const int64_t axis = call.integer("axis");
  const std::vector<int64_t> indices = load<int64_t>(call.input(1));
  return rearrange(call.input(0), shape, [&](const Sizes& index) {
    int64_t which = 0, offset = 0;
    for (size_t i = 0; i < index.size(); ++i) {
      which += index[i] * index_strides[i];
      if (static_cast<int64_t>(i) != axis) offset += index[i] * strides[i];
    }
    return offset + checked(call, indices[which], x[axis]) * strides[axis];
  });
}

}  // namespace

Literal evaluate_gather(const Call& call) {
  return call.node.op == Op::gather_elements ? gather_elements(call) : gather_nd(call);
}

}  // namespace kiln::reference
