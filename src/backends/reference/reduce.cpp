// Reductions and scans. NaN wins every maximum and minimum.
#include <cmath>

#include "backends/reference/array.h"
#include "support/error.h"

namespace kiln::reference {
namespace {

using ir::Op;

// Whether b replaces a as the maximum (minimum) so far.
bool beats(double b, double a, bool maximum) {
  if (std::isnan(a)) return false;
  return std::isnan(b) || (maximum ? b > a : b < a);
}

Array reduce_arg(const Call& call) {
  const Array& x = call.operand(0);
  const auto axis = static_cast<size_t>(call.integer("axis"));
  const bool maximum = call.node.op == Op::argmax;
  Array result = call.result();
  const Sizes strides = row_major_strides(x.shape);
  Sizes outer = x.shape;
  outer[axis] = 1;
  for_each_index(outer, [&](const Sizes& index, int64_t i) {
    const int64_t base = offset_of(index, strides);
    int64_t best = 0;
    for (int64_t k = 1; k < x.shape[axis]; ++k) {
      const int64_t at = base + k * strides[axis], best_at = base + best * strides[axis];
      const bool better = x.floating() ? beats(x.as_double(at), x.as_double(best_at), maximum)
                                       : (maximum ? x.as_int(at) > x.as_int(best_at)
                                                  : x.as_int(at) < x.as_int(best_at));
      if (better) best = k;
    }
    result.set_int(i, best);
  });
  return result;
}

void accumulate_float(Op op, double& total, double value, bool first) {
  switch (op) {
    case Op::reduce_sum:
    case Op::reduce_mean:
      total += value;
      break;
    case Op::reduce_prod:
      total = first ? value : total * value;
      break;
    default:
      if (first || beats(value, total, op == Op::reduce_max)) total = value;
  }
}

void accumulate_int(Op op, int64_t& total, int64_t value, bool first) {
  switch (op) {
    case Op::reduce_sum:
      total = static_cast<int64_t>(static_cast<uint64_t>(total) + static_cast<uint64_t>(value));
      break;
    case Op::reduce_prod:
      total =
          first ? value
                : static_cast<int64_t>(static_cast<uint64_t>(total) * static_cast<uint64_t>(value));
      break;
    default:
      if (first || (op == Op::reduce_max ? value > total : value < total)) total = value;
  }
}

}  // namespace

Array evaluate_reduce(const Call& call) {
  const Op op = call.node.op;
  if (op == Op::argmax || op == Op::argmin) return reduce_arg(call);
  const Array& x = call.operand(0);
  Array result = call.result();
  Sizes kept = x.shape, reduced(x.shape.size(), 1);
  for (int64_t axis : call.ints("axes")) {
    kept[static_cast<size_t>(axis)] = 1;
    reduced[static_cast<size_t>(axis)] = x.shape[static_cast<size_t>(axis)];
  }
  const Sizes strides = row_major_strides(x.shape);
  const auto count = static_cast<double>(element_count(reduced));
  for_each_index(kept, [&](const Sizes& outer, int64_t i) {
    const int64_t base = offset_of(outer, strides);
    double total = op == Op::reduce_prod ? 1 : 0;
    int64_t int_total = op == Op::reduce_prod ? 1 : 0;
    for_each_index(reduced, [&](const Sizes& inner, int64_t k) {
      const int64_t at = base + offset_of(inner, strides);
      if (x.floating()) {
        accumulate_float(op, total, x.as_double(at), k == 0);
      } else {
        accumulate_int(op, int_total, x.as_int(at), k == 0);
      }
    });
    if (op == Op::reduce_mean) total /= count;
    if (x.floating()) {
      result.set(i, total);
    } else {
      result.set_int(i, int_total);
    }
  });
  return result;
}

Array evaluate_cumsum(const Call& call) {
  Array result = call.operand(0);
  result.dtype = call.node.output()->type.dtype;
  KILN_CHECK(result.dtype == call.operand(0).dtype);
  const auto axis = static_cast<size_t>(call.integer("axis"));
  const Sizes strides = row_major_strides(result.shape);
  for_each_index(result.shape, [&](const Sizes& index, int64_t i) {
    if (index[axis] == 0) return;
    const int64_t before = i - strides[axis];
    if (result.floating()) {
      result.set(i, result.as_double(i) + result.as_double(before));
    } else {
      result.set_int(i, static_cast<int64_t>(static_cast<uint64_t>(result.as_int(i)) +
                                             static_cast<uint64_t>(result.as_int(before))));
    }
  });
  return result;
}

}  // namespace kiln::reference
