// Ops that slide a window over spatial axes: convolution, max_pool and avg_pool.
#include "ir/infer.h"

namespace kiln::ir {
namespace {

bool is_channels_last(const Call& call) {
  const std::string& layout = call.attr<std::string>("layout");
  call.expect(layout == "nchw" || layout == "nhwc", "layout \"" + layout + "\"", "nchw or nhwc");
  return layout == "nhwc";
}

Window window_at(const Call& call, size_t axis, int64_t kernel) {
  Window window;
  window.kernel = kernel;
  window.stride = call.integers("stride")[axis];
  window.padding_before = call.integers("padding_before")[axis];
  window.padding_after = call.integers("padding_after")[axis];
  if (call.has_attr("dilation")) window.dilation = call.integers("dilation")[axis];
  return window;
}

void expect_lists_of(const Call& call, size_t spatial) {
  for (std::string_view name :
       {"kernel", "stride", "padding_before", "padding_after", "dilation"}) {
    if (!call.has_attr(name)) continue;
    const std::vector<int64_t>& values = call.integers(name);
    call.expect(values.size() == spatial, std::string(name) + " " + list_str(values),
                std::to_string(spatial) + " values");
    for (int64_t value : values) {
      const int64_t least = name.starts_with("padding") ? 0 : 1;
      call.expect(value >= least, std::string(name) + " " + list_str(values),
                  "values of " + std::to_string(least) + " or more");
    }
  }
}

}  // namespace

Dim window_count(const Call& call, const Dim& size, const Window& window) {
  const Dim padded = size + window.padding_before + window.padding_after;
  const Dim reach = padded - (window.dilation * (window.kernel - 1) + 1);
  call.expect(reach.upper_bound() >= 0,
              "a window of " + std::to_string(window.dilation * (window.kernel - 1) + 1),
              "at most the padded size " + padded.str());
  return floordiv(reach, window.stride) + 1;
}

Type infer_convolution(const Call& call) {
  const Shape &x = call.shape(0), &weight = call.shape(1);
  call.expect(x.size() >= 3, "an operand of shape " + shape_str(x), "rank 3 or more");
  call.expect_rank(1, x.size());
  const size_t spatial = x.size() - 2;
  expect_lists_of(call, spatial);
  const bool last = is_channels_last(call);
  const size_t channel_axis = last ? x.size() - 1 : 1;
  const size_t first_spatial = last ? 1 : 2;
  const int64_t groups = call.integer("groups");
  call.expect(groups >= 1, std::to_string(groups) + " groups", "1 or more");
  call.expect_equal(weight[channel_axis] * groups, x[channel_axis], "a weight for channels");
  call.expect(provably_divisible(weight[0], groups), weight[0].str() + " filters",
              "a multiple of " + std::to_string(groups) + " groups");
  if (call.has(2)) {
    call.expect_rank(2, 1);
    call.expect_equal(call.shape(2)[0], weight[0], "a bias of size");
  }
  Type result = call.type(0);
  if (call.has_attr("result")) {
    const DType own = result.dtype;
    result.dtype = call.attr<DType>("result");
    call.expect(is_16_bit_float(own) && result.dtype == DType::F32,
                "result = " + std::string(dtype_name(result.dtype)), "f32 of 16-bit operands");
  }
  result.shape[channel_axis] = weight[0];
  for (size_t i = 0; i < spatial; ++i) {
    const Dim& kernel = weight[first_spatial + i];
    call.expect(kernel.is_constant(), "a kernel of size " + kernel.str(), "a constant size");
    result.shape[first_spatial + i] =
        window_count(call, x[first_spatial + i], window_at(call, i, kernel.constant()));
  }
  return result;
}

Type infer_pool(const Call& call) {
  Type result = call.type(0);
  const size_t spatial = call.integers("kernel").size();
  call.expect(result.rank() == spatial + 2, "an operand of shape " + shape_str(result.shape),
              "rank " + std::to_string(spatial + 2));
  expect_lists_of(call, spatial);
  const size_t first_spatial = is_channels_last(call) ? 1 : 2;
  for (size_t i = 0; i < spatial; ++i) {
    Dim& size = result.shape[first_spatial + i];
    size = window_count(call, size, window_at(call, i, call.integers("kernel")[i]));
  }
  return result;
}

}  // namespace kiln::ir
