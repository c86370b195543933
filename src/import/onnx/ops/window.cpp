// Strides, dilations and padding of convolutions and pools.
#include "import/onnx/ops/common.h"

namespace kiln::import::onnx {
namespace {

constexpr int64_t kMaxExtent = int64_t{1} << 31;

std::vector<int64_t> per_axis(NodeCall& call, const char* name, size_t count, int64_t fallback,
                              int64_t least) {
  const std::vector<int64_t> values = call.integers_or(name, std::vector<int64_t>(count, fallback));
  call.expect(values.size() == count, std::to_string(values.size()) + " " + name,
              std::to_string(count));
  for (const int64_t value : values)
    call.expect(value >= least && value < kMaxExtent,
                std::string(name) + " with " + std::to_string(value),
                std::to_string(least) + " or more");
  return values;
}

// As many results as strides fit into the size; the odd one goes behind, or before for SAME_LOWER.
void pad_to_same(NodeCall& call, const Shape& sizes, bool lower, Window& window) {
  for (size_t i = 0; i < sizes.size(); ++i) {
    const int64_t reach = window.dilation[i] * (window.kernel[i] - 1) + 1;
    int64_t total = reach - 1;  // with stride 1, whatever the size
    if (window.stride[i] != 1) {
      const int64_t size = known_size(call, sizes[i], "auto_pad with strides");
      const int64_t count = (size + window.stride[i] - 1) / window.stride[i];
      total = std::max<int64_t>(0, (count - 1) * window.stride[i] + reach - size);
    }
    window.before[i] = lower ? total - total / 2 : total / 2;
    window.after[i] = total - window.before[i];
  }
}

}  // namespace

Window read_window(NodeCall& call, std::vector<int64_t> kernel, const Shape& sizes) {
  const size_t count = sizes.size();
  call.expect(kernel.size() == count, "a kernel of " + std::to_string(kernel.size()) + " axes",
              std::to_string(count));
  for (const int64_t size : kernel)
    call.expect(size >= 1 && size < kMaxExtent, "a kernel of size " + std::to_string(size),
                "1 or more");
  Window window{std::move(kernel), per_axis(call, "strides", count, 1, 1),
                std::vector<int64_t>(count, 0), std::vector<int64_t>(count, 0),
                per_axis(call, "dilations", count, 1, 1)};
  const std::vector<int64_t> pads = per_axis(call, "pads", 2 * count, 0, 0);
  const std::string mode = call.text_or("auto_pad", "NOTSET");
  if (mode == "SAME_UPPER" || mode == "SAME_LOWER") {
    pad_to_same(call, sizes, mode == "SAME_LOWER", window);
  } else if (mode == "NOTSET" || mode.empty()) {
    window.before.assign(pads.begin(), pads.begin() + static_cast<int64_t>(count));
    window.after.assign(pads.begin() + static_cast<int64_t>(count), pads.end());
  } else {
    call.expect(mode == "VALID", "auto_pad \"" + mode + "\"",
                "NOTSET, VALID, SAME_UPPER or SAME_LOWER");
  }
  return window;
}

}  // namespace kiln::import::onnx
