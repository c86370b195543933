// max_pool and avg_pool with any number of spatial axes.
#include <limits>
#include <optional>

#include "backends/reference/layout.h"

namespace kiln::reference {
namespace {

using ir::Op;

struct Window {
  Sizes kernel, stride, before, after, dilation;
};

Window read_window(const Call& call) {
  Window window{call.integers("kernel"),
                call.integers("stride"),
                call.integers("padding_before"),
                call.integers("padding_after"),
                {}};
  window.dilation = Sizes(window.kernel.size(), 1);
  if (call.node.has_attr("dilation")) window.dilation = call.integers("dilation");
  return window;
}

Sizes pooled_shape(const Window& window, const Sizes& shape) {
  Sizes result(shape.begin(), shape.begin() + 2);
  for (size_t i = 0; i < window.kernel.size(); ++i) {
    const int64_t padded = shape[i + 2] + window.before[i] + window.after[i];
    const int64_t reach = padded - window.dilation[i] * (window.kernel[i] - 1) - 1;
    result.push_back(reach < 0 ? 0 : reach / window.stride[i] + 1);
  }
  return result;
}

// What one window holds.
template <typename T>
struct Content {
  std::optional<T> largest;
  double sum = 0;
  int64_t inside = 0;
};

template <typename T>
Content<T> read_content(const Window& window, const std::vector<T>& x, const Sizes& shape,
                        const Sizes& index) {
  const Sizes strides = row_major_strides(shape);
  Content<T> content;
  Sizes tap(window.kernel.size(), 0);
  for (int64_t t = 0; t < product(window.kernel); ++t) {
    int64_t offset = index[0] * strides[0] + index[1] * strides[1];
    bool inside = true;
    for (size_t i = 0; i < tap.size(); ++i) {
      const int64_t at =
          index[i + 2] * window.stride[i] - window.before[i] + tap[i] * window.dilation[i];
      inside = inside && at >= 0 && at < shape[i + 2];
      offset += at * strides[i + 2];
    }
    if (inside) {
      const T value = x[offset];
      const bool wins = !content.largest || value > *content.largest || value != value;
      if (wins && !(content.largest && *content.largest != *content.largest))
        content.largest = value;
      content.sum += static_cast<double>(value);
      ++content.inside;
    }
    for (size_t d = tap.size(); d-- > 0 && ++tap[d] == window.kernel[d];) tap[d] = 0;
  }
  return content;
}

template <typename T>
T result_of(const Call& call, const Window& window, const Content<T>& content) {
  if (call.node.op == Op::max_pool) {
    constexpr T kLowest = std::is_same_v<T, double> ? -std::numeric_limits<T>::infinity()
                                                    : std::numeric_limits<T>::min();
    return content.largest.value_or(kLowest);
  }
  int64_t count = call.flag("count_padding") ? product(window.kernel) : content.inside;
  if (call.node.has_attr("divisor")) count = call.integer("divisor");
  return static_cast<T>(content.sum / static_cast<double>(count));
}

template <typename T>
Literal pool(const Call& call, const Literal& input) {
  const Window window = read_window(call);
  const Sizes shape = pooled_shape(window, input.shape);
  const std::vector<T> x = load<T>(input);
  std::vector<T> result(product(shape));
  Sizes index(shape.size(), 0);
  for (T& value : result) {
    value = result_of(call, window, read_content(window, x, input.shape, index));
    for (size_t d = shape.size(); d-- > 0 && ++index[d] == shape[d];) index[d] = 0;
  }
  return store(result, input.dtype, shape);
}

}  // namespace

Literal evaluate_pool(const Call& call) {
  const bool last = call.text("layout") == "nhwc";
  const Literal x = last ? channels_first(call.input(0)) : call.input(0);
  const Literal result = is_floating(x.dtype) ? pool<double>(call, x) : pool<int64_t>(call, x);
  return last ? channels_last(result) : result;
}

}  // namespace kiln::reference
