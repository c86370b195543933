// Pooling in either layout.
#include <cmath>

#include "backends/reference/array.h"

namespace kiln::reference {

Array evaluate_pool(const Call& call) {
  const Array& x = call.operand(0);
  const bool maximum = call.node.op == ir::Op::max_pool;
  const bool last = call.node.attr<std::string>("layout") == "nhwc";
  const size_t first = last ? 1 : 2;
  const Sizes &kernel = call.ints("kernel"), &stride = call.ints("stride");
  const Sizes &before = call.ints("padding_before"), &after = call.ints("padding_after");
  const Sizes dilation = maximum ? call.ints("dilation") : Sizes(kernel.size(), 1);
  const Sizes strides = row_major_strides(x.shape);
  const bool count_padding = !maximum && call.node.attr<bool>("count_padding");
  Array result = call.result();
  for_each_index(result.shape, [&](const Sizes& index, int64_t i) {
    double best = -INFINITY, sum = 0;
    int64_t best_int = INT64_MIN, count = 0;
    for_each_index(kernel, [&](const Sizes& tap, int64_t) {
      Sizes at = index;
      bool inside = true, inside_padded = true;
      for (size_t d = 0; d < kernel.size(); ++d) {
        const int64_t size = x.shape[first + d];
        at[first + d] = index[first + d] * stride[d] + tap[d] * dilation[d] - before[d];
        inside &= at[first + d] >= 0 && at[first + d] < size;
        inside_padded &= at[first + d] < size + after[d];
      }
      count += count_padding ? inside_padded : inside;
      if (!inside) return;
      const int64_t offset = offset_of(at, strides);
      sum += x.as_double(offset);
      if (!x.floating()) best_int = std::max(best_int, x.as_int(offset));
      const double value = x.as_double(offset);
      if (std::isnan(value) || value > best) best = value;
    });
    if (maximum) {
      if (x.floating()) {
        result.set(i, best);
      } else {
        result.set_int(i, best_int);
      }
    } else {
      const int64_t divisor = call.node.attr_or<int64_t>("divisor", count);
      result.set(i, sum / static_cast<double>(divisor));
    }
  });
  return result;
}

}  // namespace kiln::reference
