// Reductions and scans.
#include <algorithm>
#include <limits>

#include "backends/reference/tensor.h"
#include "support/error.h"

namespace kiln::reference {
namespace {

using ir::Op;

template <typename T>
T combine(Op op, T a, T b) {
  if (op == Op::reduce_prod) {
    if constexpr (std::is_same_v<T, double>) return a * b;
    return static_cast<T>(static_cast<uint64_t>(a) * static_cast<uint64_t>(b));
  }
  if (op == Op::reduce_max) return a != a || a > b ? a : b;  // NaN stays
  if (op == Op::reduce_min) return a != a || a < b ? a : b;
  if constexpr (std::is_same_v<T, double>) return a + b;
  return static_cast<T>(static_cast<uint64_t>(a) + static_cast<uint64_t>(b));
}

// The result of no elements.
template <typename T>
T start(Op op, DType dtype) {
  if (op == Op::reduce_prod) return 1;
  if (op != Op::reduce_max && op != Op::reduce_min) return 0;
  const bool least = op == Op::reduce_max;
  if constexpr (std::is_same_v<T, double>) {
    return least ? -std::numeric_limits<double>::infinity()
                 : std::numeric_limits<double>::infinity();
  }
  return static_cast<T>(least ? least_integer(dtype) : greatest_integer(dtype));
}

Sizes reduced_shape(const Sizes& shape, const Sizes& axes, bool keepdim) {
  Sizes result;
  for (size_t i = 0; i < shape.size(); ++i) {
    const bool reduced = std::ranges::find(axes, static_cast<int64_t>(i)) != axes.end();
    if (!reduced) result.push_back(shape[i]);
    if (reduced && keepdim) result.push_back(1);
  }
  return result;
}

// The stride of each operand axis in the result; 0 for a reduced one.
Sizes result_strides(const Sizes& shape, const Sizes& axes) {
  const Sizes kept = reduced_shape(shape, axes, true);
  Sizes strides = row_major_strides(kept);
  for (int64_t axis : axes) strides[axis] = 0;
  return strides;
}

template <typename T>
Literal reduce(const Call& call) {
  const Op op = call.node.op;
  const Sizes &shape = call.shape(0), &axes = call.integers("axes");
  const Sizes result_shape = reduced_shape(shape, axes, call.flag("keepdim"));
  std::vector<T> result(product(result_shape), start<T>(op, call.dtype()));
  Walk at(shape, result_strides(shape, axes));
  int64_t count = 0;
  for (const T value : load<T>(call.input(0))) {
    T& target = result[at.offset()];
    target = combine(op, target, value);
    at.next();
    ++count;
  }
  if (op == Op::reduce_mean) {
    const double size =
        static_cast<double>(count) / static_cast<double>(std::max<size_t>(result.size(), 1));
    for (T& value : result) value = static_cast<T>(static_cast<double>(value) / size);
  }
  return store(result, call.dtype(), result_shape);
}

// NaN beats everything; of equal elements the first wins.
template <typename T>
bool beats(Op op, T challenger, T best) {
  if (best != best) return false;
  if (challenger != challenger) return true;
  return op == Op::argmax ? challenger > best : challenger < best;
}

template <typename T>
Literal arg_reduce(const Call& call) {
  const Split split = split_at(call.shape(0), call.integer("axis"));
  const std::vector<T> x = load<T>(call.input(0));
  std::vector<int64_t> result(split.outer * split.inner, 0);
  if (split.size == 0 && !result.empty()) call.fail("no elements", "1 or more");
  for (int64_t outer = 0; outer < split.outer; ++outer) {
    for (int64_t inner = 0; inner < split.inner; ++inner) {
      const T* row = x.data() + outer * split.size * split.inner + inner;
      int64_t& best = result[outer * split.inner + inner];
      for (int64_t i = 1; i < split.size; ++i) {
        if (beats(call.node.op, row[i * split.inner], row[best * split.inner])) best = i;
      }
    }
  }
  return store(result, DType::I64,
               reduced_shape(call.shape(0), {call.integer("axis")}, call.flag("keepdim")));
}

Op step_of(Op scan) {
  switch (scan) {
    case Op::cumprod:
      return Op::reduce_prod;
    case Op::cummax:
      return Op::reduce_max;
    case Op::cummin:
      return Op::reduce_min;
    default:
      return Op::reduce_sum;
  }
}

template <typename T>
Literal scan(const Call& call) {
  const Op step = step_of(call.node.op);
  const Split split = split_at(call.shape(0), call.integer("axis"));
  std::vector<T> x = load<T>(call.input(0));
  for (int64_t outer = 0; outer < split.outer; ++outer) {
    T* block = x.data() + outer * split.size * split.inner;
    for (int64_t i = split.inner; i < split.size * split.inner; ++i) {
      block[i] = combine(step, block[i - split.inner], block[i]);
    }
  }
  return store(x, call.dtype(), call.shape(0));
}

}  // namespace

Literal evaluate_reduce(const Call& call) {
  const bool floating = is_floating(call.dtype());
  if (call.node.op == Op::argmax || call.node.op == Op::argmin) {
    return floating ? arg_reduce<double>(call) : arg_reduce<int64_t>(call);
  }
  return floating ? reduce<double>(call) : reduce<int64_t>(call);
}

Literal evaluate_scan(const Call& call) {
  return is_floating(call.dtype()) ? scan<double>(call) : scan<int64_t>(call);
}

}  // namespace kiln::reference
