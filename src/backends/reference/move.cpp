// Ops that move elements without computing on them.
#include <algorithm>

#include "backends/reference/tensor.h"
#include "support/error.h"

namespace kiln::reference {
namespace {

using ir::Op;

int64_t dot(const Sizes& a, const Sizes& b) {
  int64_t sum = 0;
  for (size_t i = 0; i < a.size(); ++i) sum += a[i] * b[i];
  return sum;
}

Literal reshape(const Call& call) {
  Literal result = call.input(0);
  result.shape = call.dims("shape");
  if (product(result.shape) != call.input(0).elements())
    call.fail("another number of elements", "the same number");
  return result;
}

Literal permute(const Call& call) {
  const Sizes& axes = call.integers("axes");
  const Sizes own = row_major_strides(call.shape(0));
  Sizes shape, strides;
  for (int64_t axis : axes) {
    shape.push_back(call.shape(0)[axis]);
    strides.push_back(own[axis]);
  }
  return rearrange(call.input(0), shape, [&](const Sizes& index) { return dot(index, strides); });
}

Literal expand(const Call& call) {
  const Sizes shape = call.dims("shape");
  if (broadcast(call.shape(0), shape) != shape)
    call.fail("sizes that do not broadcast", "sizes that are equal or 1");
  const Sizes strides = broadcast_strides(call.shape(0), shape);
  return rearrange(call.input(0), shape, [&](const Sizes& index) { return dot(index, strides); });
}

Literal slice(const Call& call) {
  const int64_t axis = call.integer("axis"), start = call.dim("start"), step = call.integer("step");
  Sizes shape = call.shape(0), strides = row_major_strides(shape);
  const int64_t size = call.dim("size"), base = start * strides[axis];
  if (start < 0 || size < 0 || (size > 0 && start + (size - 1) * step >= shape[axis])) {
    call.fail("start " + std::to_string(start) + " and size " + std::to_string(size) + " of " +
                  std::to_string(shape[axis]),
              "a range in bounds");
  }
  shape[axis] = size;
  strides[axis] *= step;
  return rearrange(call.input(0), shape,
                   [&](const Sizes& index) { return base + dot(index, strides); });
}

Literal flip(const Call& call) {
  const Sizes &shape = call.shape(0), &axes = call.integers("axes");
  const Sizes strides = row_major_strides(shape);
  return rearrange(call.input(0), shape, [&](const Sizes& index) {
    Sizes source = index;
    for (int64_t axis : axes) source[axis] = shape[axis] - 1 - index[axis];
    return dot(source, strides);
  });
}

// The operand index for a result index along one axis; -1 outside.
int64_t padded_index(const std::string& mode, int64_t index, int64_t size) {
  if (index >= 0 && index < size) return index;
  if (mode == "constant") return -1;
  if (mode == "replicate") return std::clamp<int64_t>(index, 0, size - 1);
  const int64_t reflected = index < 0 ? -index : 2 * (size - 1) - index;
  return reflected >= 0 && reflected < size ? reflected : -1;
}

Literal pad(const Call& call) {
  const Sizes &input = call.shape(0), before = call.dims("before"), after = call.dims("after");
  const Sizes strides = row_major_strides(input);
  const std::string& mode = call.text("mode");
  Sizes shape = input;
  for (size_t i = 0; i < shape.size(); ++i) {
    shape[i] += before[i] + after[i];
    if (shape[i] < 0) call.fail("a negative result size", "0 or more");
  }
  const auto source = [&](const Sizes& index) -> int64_t {
    int64_t offset = 0;
    for (size_t i = 0; i < index.size(); ++i) {
      const int64_t at = padded_index(mode, index[i] - before[i], input[i]);
      if (at < 0) return -1;
      offset += at * strides[i];
    }
    return offset;
  };
  return rearrange(call.input(0), shape, source, call.real("value"));
}

Literal concat(const Call& call) {
  const int64_t axis = call.integer("axis");
  Sizes shape = call.shape(0);
  shape[axis] = 0;
  for (size_t i = 0; i < call.inputs.size(); ++i) shape[axis] += call.shape(i)[axis];
  std::byte* data = nullptr;
  Literal result = Literal::allocate(call.dtype(), shape, &data);
  const Split split = split_at(shape, axis);
  const int64_t item = static_cast<int64_t>(dtype_size(call.dtype()));
  for (int64_t outer = 0; outer < split.outer; ++outer) {
    for (size_t i = 0; i < call.inputs.size(); ++i) {
      const int64_t bytes = call.shape(i)[axis] * split.inner * item;
      std::copy_n(call.input(i).bytes.data() + outer * bytes, bytes, data);
      data += bytes;
    }
  }
  return result;
}

}  // namespace

Literal evaluate_move(const Call& call) {
  switch (call.node.op) {
    case Op::reshape:
      return reshape(call);
    case Op::permute:
      return permute(call);
    case Op::expand:
      return expand(call);
    case Op::slice:
      return slice(call);
    case Op::flip:
      return flip(call);
    case Op::pad:
      return pad(call);
    case Op::concat:
      return concat(call);
    default:
      return evaluate_gather(call);
  }
}

}  // namespace kiln::reference
