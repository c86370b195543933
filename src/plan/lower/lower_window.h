// What convolution and pooling share: the position of a window's element in the operand, and
// whether it is inside.
#pragma once

#include "plan/lower/lowering.h"

namespace kiln::plan {

struct Window {
  std::vector<int64_t> stride, padding_before, padding_after, dilation;
  bool channels_last = false;

  size_t rank() const { return stride.size(); }
  size_t channel_axis(size_t tensor_rank) const { return channels_last ? tensor_rank - 1 : 1; }
  size_t spatial_axis(size_t i) const { return channels_last ? i + 1 : i + 2; }
};
Window window_of(const ir::Node& node);

// The element of `x` under kernel position `kernel` of the window of result position `out`, in
// channel `channel`.
struct WindowElement {
  Indices at;
  Expr inside;  // null: always
};
WindowElement window_element(const Window& window, const ir::Shape& x, const Indices& out,
                             const Indices& kernel, const Index& channel);

}  // namespace kiln::plan
