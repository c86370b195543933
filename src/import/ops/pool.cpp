// Pooling, adaptive pooling included.
#include <algorithm>

#include "import/ops/common.h"

namespace kiln::import {
namespace {

struct Window {
  std::vector<int64_t> kernel, stride, padding, padding_after, dilation;
};

// With ceil_mode a last, incomplete window counts if it starts inside the input or the padding before it.
int64_t ceil_mode_extra(Call& call, const Window& window, const ir::Dim& size, size_t i) {
  call.expect(size.is_constant(), "ceil_mode with the symbolic size " + size.str(), "a constant size");
  const int64_t padded = size.constant() + 2 * window.padding[i];
  const int64_t reach = padded - window.dilation[i] * (window.kernel[i] - 1) - 1;
  call.expect(reach >= 0 || window.stride[i] > -reach, "a window beyond the input", "a smaller window");
  int64_t steps = (reach + window.stride[i] - 1) / window.stride[i];
  if (steps * window.stride[i] >= size.constant() + window.padding[i]) --steps;
  return std::max<int64_t>(0, steps * window.stride[i] - reach);
}

Window read_window(Call& call, const ir::Shape& sizes) {
  const size_t spatial = sizes.size();
  Window window;
  window.kernel = per_axis(call, call.integers("kernel_size"), spatial);
  window.stride = call.integers_or("stride", {});
  window.stride = window.stride.empty() ? window.kernel : per_axis(call, window.stride, spatial);
  for (int64_t stride : window.stride) call.expect(stride > 0, "stride " + std::to_string(stride), "1 or more");
  window.padding = per_axis(call, "padding", spatial, 0);
  window.dilation = per_axis(call, "dilation", spatial, 1);
  window.padding_after = window.padding;
  if (!call.boolean_or("ceil_mode", false)) return window;
  for (size_t i = 0; i < spatial; ++i) window.padding_after[i] += ceil_mode_extra(call, window, sizes[i], i);
  return window;
}

ir::Attrs window_attrs(const Window& window) {
  return {{"kernel", window.kernel},
          {"stride", window.stride},
          {"padding_before", window.padding},
          {"padding_after", window.padding_after},
          {"layout", std::string("nchw")}};
}

// [C, spatial..] gets a batch axis for the time of the call.
template <typename Pool>
Value* with_batch(Call& call, size_t spatial, const Pool& pool) {
  Value* x = call.tensor("self");
  call.expect(x->type.rank() == spatial + 1 || x->type.rank() == spatial + 2,
              "an input of shape " + shape_text(x->type.shape), "rank " + std::to_string(spatial + 2));
  const bool added = x->type.rank() == spatial + 1;
  Value* result = pool(added ? unsqueeze(call, x, 0) : x);
  if (!added) return result;
  return call.builder().reshape(result, ir::Shape(result->type.shape.begin() + 1, result->type.shape.end()));
}

ir::Shape spatial_sizes(const Value* x) { return {x->type.shape.begin() + 2, x->type.shape.end()}; }

template <size_t spatial>
Value* import_max_pool(Call& call) {
  return with_batch(call, spatial, [&](Value* x) {
    const Window window = read_window(call, spatial_sizes(x));
    ir::Attrs attrs = window_attrs(window);
    attrs.emplace("dilation", window.dilation);
    return call.make(Op::max_pool, {x}, attrs);
  });
}

template <size_t spatial>
std::vector<Value*> import_max_pool_with_indices(Call& call) {
  call.expect(!call.output_used(1), "a use of the indices", "their values only");
  return {import_max_pool<spatial>(call), nullptr};
}

template <size_t spatial>
Value* import_avg_pool(Call& call) {
  return with_batch(call, spatial, [&](Value* x) {
    const Window window = read_window(call, spatial_sizes(x));
    const bool count_padding = call.boolean_or("count_include_pad", true);
    // What ceil_mode adds is not padding to PyTorch: it never counts.
    const bool has_extra = window.padding_after != window.padding;
    const bool has_padding = window.padding != std::vector<int64_t>(spatial, 0);
    call.expect(!(count_padding && has_extra && has_padding) || call.has("divisor_override"),
                "ceil_mode with counted padding", "count_include_pad=False");
    ir::Attrs attrs = window_attrs(window);
    attrs.emplace("count_padding", count_padding && !has_extra);
    if (call.has("divisor_override")) attrs.emplace("divisor", call.integer("divisor_override"));
    return call.make(Op::avg_pool, {x}, attrs);
  });
}

// The window that gives `output` results from `size` elements, where all windows are equal.
int64_t adaptive_window(Call& call, const ir::Dim& size, int64_t output) {
  const bool even = size.is_constant() && output > 0 && size.constant() % output == 0;
  call.expect(even, "output size " + std::to_string(output) + " for size " + size.str(),
              "1, or a divisor of a constant size");
  return size.constant() / output;
}

Value* adaptive_pool(Call& call, size_t spatial, bool is_max) {
  return with_batch(call, spatial, [&](Value* x) -> Value* {
    const ir::Shape sizes = spatial_sizes(x);
    std::vector<int64_t> output = per_axis(call, call.integers("output_size"), spatial);
    if (output == std::vector<int64_t>(spatial, 1)) {
      return reduce(call, is_max ? Op::reduce_max : Op::reduce_mean, x,
                    range(2, static_cast<int64_t>(spatial) + 2), true);
    }
    Window window;
    for (size_t i = 0; i < spatial; ++i) window.kernel.push_back(adaptive_window(call, sizes[i], output[i]));
    window.stride = window.kernel;
    window.padding = window.padding_after = std::vector<int64_t>(spatial, 0);
    ir::Attrs attrs = window_attrs(window);
    if (is_max) {
      attrs.emplace("dilation", std::vector<int64_t>(spatial, 1));
    } else {
      attrs.emplace("count_padding", false);
    }
    return call.make(is_max ? Op::max_pool : Op::avg_pool, {x}, attrs);
  });
}

template <size_t spatial>
Value* import_adaptive_avg_pool(Call& call) {
  return adaptive_pool(call, spatial, false);
}

template <size_t spatial>
std::vector<Value*> import_adaptive_max_pool(Call& call) {
  call.expect(!call.output_used(1), "a use of the indices", "their values only");
  return {adaptive_pool(call, spatial, true), nullptr};
}

constexpr Row kRows[] = {
    {"aten.max_pool1d.default", import_max_pool<1>},
    {"aten.max_pool2d.default", import_max_pool<2>},
    {"aten.max_pool3d.default", import_max_pool<3>},
    {"aten.max_pool1d_with_indices.default", import_max_pool_with_indices<1>},
    {"aten.max_pool2d_with_indices.default", import_max_pool_with_indices<2>},
    {"aten.max_pool3d_with_indices.default", import_max_pool_with_indices<3>},
    {"aten.avg_pool1d.default", import_avg_pool<1>},
    {"aten.avg_pool2d.default", import_avg_pool<2>},
    {"aten.avg_pool3d.default", import_avg_pool<3>},
    {"aten.adaptive_avg_pool1d.default", import_adaptive_avg_pool<1>},
    {"aten.adaptive_avg_pool2d.default", import_adaptive_avg_pool<2>},
    {"aten.adaptive_avg_pool3d.default", import_adaptive_avg_pool<3>},
    {"aten._adaptive_avg_pool2d.default", import_adaptive_avg_pool<2>},
    {"aten._adaptive_avg_pool3d.default", import_adaptive_avg_pool<3>},
    {"aten.adaptive_max_pool1d.default", import_adaptive_max_pool<1>},
    {"aten.adaptive_max_pool2d.default", import_adaptive_max_pool<2>},
    {"aten.adaptive_max_pool3d.default", import_adaptive_max_pool<3>},
};

}  // namespace

Rows pool_rows() { return kRows; }

}  // namespace kiln::import
