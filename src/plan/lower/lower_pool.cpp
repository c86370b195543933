// Pooling, and the windows it shares with convolution.
#include <limits>

#include "plan/lower/lower_window.h"
#include "support/error.h"

namespace kiln::plan {
namespace {

using ir::Op;

// -inf, or the least integer.
Expr lowest(DType dtype) {
  if (is_floating(dtype)) return constant(dtype, -std::numeric_limits<double>::infinity());
  return constant_int(dtype, least_integer(dtype));
}

// How many elements of the window at `out` count: those inside the operand, or inside its padded
// extent.
ir::Dim window_size(const Window& window, const ir::Shape& x, const ir::Shape& kernel,
                    const Indices& out, bool count_padding) {
  ir::Dim size = 1;
  for (size_t i = 0; i < window.rank(); ++i) {
    const size_t axis = window.spatial_axis(i);
    if (count_padding) {
      size *= kernel[i];
      continue;
    }
    const Index first = out[axis] * window.stride[i] - window.padding_before[i];
    size *= ir::min(first + kernel[i], x[axis]) - ir::max(first, 0);
  }
  return size;
}

}  // namespace

Window window_of(const ir::Node& node) {
  using Ints = std::vector<int64_t>;
  Window window;
  window.stride = node.attr<Ints>("stride");
  window.padding_before = node.attr<Ints>("padding_before");
  window.padding_after = node.attr<Ints>("padding_after");
  window.dilation = node.attr_or<Ints>("dilation", Ints(window.stride.size(), 1));
  window.channels_last = node.attr<std::string>("layout") == "nhwc";
  return window;
}

WindowElement window_element(const Window& window, const ir::Shape& x, const Indices& out,
                             const Indices& kernel, const Index& channel) {
  WindowElement element{Indices(x.size()), nullptr};
  element.at[0] = out[0];
  element.at[window.channel_axis(x.size())] = channel;
  for (size_t i = 0; i < window.rank(); ++i) {
    const size_t axis = window.spatial_axis(i);
    const Index index =
        out[axis] * window.stride[i] + kernel[i] * window.dilation[i] - window.padding_before[i];
    element.at[axis] = index;
    Expr low = apply(Op::ge, {position(index), position(0)});
    Expr high = apply(Op::lt, {position(index), position(x[axis])});
    element.inside = logical_and(element.inside, logical_and(std::move(low), std::move(high)));
  }
  return element;
}

void lower_pool(Lowering& lowering, const ir::Node& node) {
  const ir::Value* x = node.input(0);
  const ir::Type& type = node.output()->type;
  const Window window = window_of(node);
  ir::Shape kernel;
  for (int64_t size : node.attr<std::vector<int64_t>>("kernel")) kernel.emplace_back(size);
  const LoopSpace out = make_loops(type.shape);
  LoopSpace inner = make_loops(kernel, "w");
  const Index channel = out.indices[window.channel_axis(type.rank())];
  const WindowElement element =
      window_element(window, x->type.shape, out.indices, inner.indices, channel);
  Expr value = lowering.load(x, element.at, element.inside);
  NestBuilder builder(out.loops);
  if (node.op == Op::max_pool) {
    value = apply(Op::where, {element.inside, value, lowest(type.dtype)});
    value = builder.reduce(ReduceOp::Max, std::move(inner.loops), std::move(value));
  } else {
    const DType dtype = compute_dtype(type.dtype);
    value = builder.reduce(ReduceOp::Sum, std::move(inner.loops), cast(value, dtype));
    const ir::Dim count = node.has_attr("divisor")
                              ? ir::Dim(node.attr<int64_t>("divisor"))
                              : window_size(window, x->type.shape, kernel, out.indices,
                                            node.attr<bool>("count_padding"));
    value = cast(apply(Op::div, {value, cast(position(count), dtype)}), type.dtype);
  }
  builder.store({lowering.define(node.output()), {}, out.indices, std::move(value), {}});
  lowering.emit(node, builder.finish());
}

}  // namespace kiln::plan
