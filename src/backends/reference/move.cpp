// Data movement: each op says where the element of a result position comes from.
#include <algorithm>
#include <cmath>

#include "backends/reference/array.h"
#include "support/error.h"

namespace kiln::reference {
namespace {

using ir::Op;

// Fills the result from one operand; source(index) is the position in it.
Array map_from(const Call& call, const std::function<int64_t(const Sizes&)>& source) {
  Array result = call.result();
  for_each_index(result.shape, [&](const Sizes& index, int64_t i) {
    result.copy_element(i, call.operand(0), source(index));
  });
  return result;
}

Array reshape(const Call& call) {
  Array result = call.operand(0);
  result.shape = call.result().shape;
  KILN_CHECK(result.elements() == call.operand(0).elements());
  return result;
}

Array permute(const Call& call) {
  const Sizes strides = row_major_strides(call.operand(0).shape);
  const Sizes& axes = call.ints("axes");
  return map_from(call, [&](const Sizes& index) {
    int64_t at = 0;
    for (size_t i = 0; i < index.size(); ++i)
      at += index[i] * strides[static_cast<size_t>(axes[i])];
    return at;
  });
}

Array slice(const Call& call) {
  const Sizes strides = row_major_strides(call.operand(0).shape);
  const auto axis = static_cast<size_t>(call.integer("axis"));
  const int64_t start = call.size(call.node.attr<ir::Dim>("start")), step = call.integer("step");
  return map_from(call, [&](Sizes index) {
    index[axis] = start + index[axis] * step;
    return offset_of(index, strides);
  });
}

Array flip(const Call& call) {
  const Sizes& shape = call.operand(0).shape;
  const Sizes strides = row_major_strides(shape);
  return map_from(call, [&](Sizes index) {
    for (int64_t axis : call.ints("axes")) {
      const auto a = static_cast<size_t>(axis);
      index[a] = shape[a] - 1 - index[a];
    }
    return offset_of(index, strides);
  });
}

// The operand's index for a padded one; -1 where the constant goes.
int64_t padded_index(int64_t i, int64_t size, const std::string& mode) {
  if (i >= 0 && i < size) return i;
  if (mode == "replicate") return std::clamp<int64_t>(i, 0, size - 1);
  if (mode == "reflect") return i < 0 ? -i : 2 * (size - 1) - i;
  return -1;
}

Array pad(const Call& call) {
  const Array& x = call.operand(0);
  const Sizes strides = row_major_strides(x.shape);
  const Sizes before = call.sizes(call.node.attr<std::vector<ir::Dim>>("before"));
  const std::string& mode = call.node.attr<std::string>("mode");
  Array result = call.result();
  for_each_index(result.shape, [&](const Sizes& index, int64_t i) {
    int64_t at = 0;
    for (size_t axis = 0; axis < index.size(); ++axis) {
      const int64_t source = padded_index(index[axis] - before[axis], x.shape[axis], mode);
      if (source < 0) return result.set(i, call.node.attr<double>("value"));
      at += source * strides[axis];
    }
    result.copy_element(i, x, at);
  });
  return result;
}

Array concat(const Call& call) {
  const auto axis = static_cast<size_t>(call.integer("axis"));
  Array result = call.result();
  for_each_index(result.shape, [&](Sizes index, int64_t i) {
    size_t part = 0;
    while (index[axis] >= call.operand(part).shape[axis]) {
      index[axis] -= call.operand(part).shape[axis];
      ++part;
    }
    const Array& x = call.operand(part);
    result.copy_element(i, x, offset_of(index, row_major_strides(x.shape)));
  });
  return result;
}

// Negative indices count from the end. Indices are data: what is still outside is clamped, as
// engines do.
int64_t wrap(int64_t index, int64_t size) {
  return std::clamp<int64_t>(index < 0 ? index + size : index, 0, std::max<int64_t>(size - 1, 0));
}

Array gather(const Call& call) {
  const Array &x = call.operand(0), &indices = call.operand(1);
  const auto axis = static_cast<size_t>(call.integer("axis"));
  const Sizes strides = row_major_strides(x.shape);
  const Sizes index_strides = row_major_strides(indices.shape);
  const size_t index_rank = indices.shape.size();
  return map_from(call, [&](const Sizes& index) {
    int64_t at = 0, index_at = 0;
    for (size_t i = 0; i < index.size(); ++i) {
      if (i < axis) {
        at += index[i] * strides[i];
      } else if (i < axis + index_rank) {
        index_at += index[i] * index_strides[i - axis];
      } else {
        at += index[i] * strides[i - index_rank + 1];
      }
    }
    return at + wrap(indices.as_int(index_at), x.shape[axis]) * strides[axis];
  });
}

Array gather_elements(const Call& call) {
  const Array &x = call.operand(0), &indices = call.operand(1);
  const auto axis = static_cast<size_t>(call.integer("axis"));
  const Sizes strides = row_major_strides(x.shape);
  const Sizes index_strides = row_major_strides(indices.shape);
  return map_from(call, [&](Sizes index) {
    index[axis] = wrap(indices.as_int(offset_of(index, index_strides)), x.shape[axis]);
    return offset_of(index, strides);
  });
}

Array gather_nd(const Call& call) {
  const Array& x = call.operand(0);
  const auto axis = static_cast<size_t>(call.integer("axis"));
  const size_t count = call.operands.size() - 1;
  const Sizes strides = row_major_strides(x.shape);
  const Sizes shape = call.result().shape;
  const size_t index_rank = shape.size() - (x.shape.size() - count);
  return map_from(call, [&](const Sizes& index) {
    const auto first = index.begin() + static_cast<std::ptrdiff_t>(axis);
    const Sizes picked(first, first + static_cast<std::ptrdiff_t>(index_rank));
    int64_t at = 0;
    for (size_t i = 0; i < axis; ++i) at += index[i] * strides[i];
    for (size_t i = 0; i < count; ++i) {
      const Array& indices = call.operand(i + 1);
      const int64_t value = indices.as_int(broadcast_offset(picked, indices.shape));
      at += wrap(value, x.shape[axis + i]) * strides[axis + i];
    }
    for (size_t i = axis + index_rank; i < index.size(); ++i) {
      at += index[i] * strides[i - index_rank + count];
    }
    return at;
  });
}

}  // namespace

Array evaluate_move(const Call& call) {
  switch (call.node.op) {
    case Op::reshape:
      return reshape(call);
    case Op::permute:
      return permute(call);
    case Op::expand:
      return map_from(
          call, [&](const Sizes& index) { return broadcast_offset(index, call.operand(0).shape); });
    case Op::slice:
      return slice(call);
    case Op::flip:
      return flip(call);
    case Op::pad:
      return pad(call);
    case Op::concat:
      return concat(call);
    case Op::gather:
      return gather(call);
    case Op::gather_elements:
      return gather_elements(call);
    default:
      return gather_nd(call);
  }
}

}  // namespace kiln::reference
