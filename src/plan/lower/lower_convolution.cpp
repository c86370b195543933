// Convolutions: channels-last ones with constant weights are Convolution kernels, or MatMul where
// the kernel is one pixel or, for few channels, where windows do not overlap; depthwise and all others
// are reduction nests.
#include <algorithm>
#include <array>

#include "plan/form/fold.h"
#include "plan/lower/lower_window.h"
#include "plan/lower/quantised.h"
#include "support/error.h"

namespace kiln::plan {
namespace {

using ir::Op;

struct Sizes {
  int64_t out = 0, channels = 0, groups = 1;  // channels: of the operand
  std::vector<int64_t> kernel;
};

Sizes sizes_of(const ir::Node& node, const Window& window) {
  const ir::Shape& weight = node.input(1)->type.shape;
  Sizes sizes;
  sizes.groups = node.attr<int64_t>("groups");
  sizes.out = weight[0].constant();
  sizes.channels = weight[window.channel_axis(weight.size())].constant() * sizes.groups;
  for (size_t i = 0; i < window.rank(); ++i) {
    sizes.kernel.push_back(weight[window.spatial_axis(i)].constant());
  }
  return sizes;
}

// A convolution of quantised operands as one of integers: u8 by constants of i8.
struct IntegerConvolution {
  ByteOperand left;
  SignedWeight weight;
  BufferId input = -1, filters = -1;  // dense
  int64_t padding = 0;                // the element that stands for zero

  // The finished sum of an output channel, without the bias.
  Expr value(Lowering& lowering, const ir::Node& node, const Index& o) const {
    Indices at(node.input(1)->type.rank(), Index(0));
    at[0] = o;
    const Quantised right = *quantised(node.input(1), at);
    return dequantised_sum(lowering, {left, right, weight, o}, accumulator_dtype(node));
  }
};
constexpr Formats kIntegers{DType::U8, DType::I8, DType::I32, DType::I8};

Expr with_bias(Lowering& lowering, const ir::Node& node, Expr sum, const Index& o) {
  if (node.input(2)) {
    const Expr bias = cast(lowering.load(node.input(2), {o}), sum->dtype);
    sum = apply(Op::add, {std::move(sum), bias});
  }
  return cast(std::move(sum), node.output()->type.dtype);
}

// --- Kernels of one pixel ---

bool is_pointwise(const Window& window, const Sizes& sizes) {
  bool result = sizes.groups == 1;
  for (size_t i = 0; i < window.rank(); ++i) {
    result &= sizes.kernel[i] == 1 && window.stride[i] == 1 && window.padding_before[i] == 0 &&
              window.padding_after[i] == 0;
  }
  return result;
}

// Rows of `depth` elements times filters; of integers if there is an `integer`.
void emit_matmul(Lowering& lowering, const ir::Node& node, BufferId rows, BufferId filters,
                 int64_t depth, const IntegerConvolution* integer = nullptr) {
  const ir::Shape& shape = node.output()->type.shape;
  const int64_t out = shape.back().constant();
  MatMul matmul;
  matmul.m = make_loop("m", ir::product({shape.begin(), shape.end() - 1}));
  matmul.n = make_loop("n", out);
  matmul.k = make_loop("k", depth);
  const auto row_major = [&](BufferId buffer, const Loop& row, const Loop& column) {
    return lowering.dense_view(buffer, {row.extent(), column.extent()}, {row.index, column.index},
                               {row, column});
  };
  matmul.a = row_major(rows, matmul.m, matmul.k);
  matmul.b = lowering.dense_view(filters, {out, depth}, {matmul.n.index, matmul.k.index},
                                 {matmul.k, matmul.n});
  matmul.out = row_major(lowering.define(node.output()), matmul.m, matmul.n);
  if (integer == nullptr)
    matmul.formats =
        lowering.formats(matmul.a.buffer, matmul.b.buffer, lowering.options().tf32_convolutions);
  Expr sum = accumulator(matmul.formats.accumulator);
  if (integer != nullptr) {
    matmul.formats = kIntegers;
    sum = integer->value(lowering, node, matmul.n.index);
  }
  matmul.epilogue = with_bias(lowering, node, std::move(sum), matmul.n.index);
  lowering.emit(node, std::move(matmul));
}

void lower_as_matmul(Lowering& lowering, const ir::Node& node, const Sizes& sizes) {
  emit_matmul(lowering, node, lowering.dense(node.input(0)), lowering.dense(node.input(1)),
              sizes.channels);
}

// --- Windows that do not overlap ---

bool is_patches(const Window& window, const Sizes& sizes) {
  bool result = sizes.groups == 1;
  for (size_t i = 0; i < window.rank(); ++i) {
    result &= sizes.kernel[i] == window.stride[i] && window.dilation[i] == 1 &&
              window.padding_before[i] == 0 && window.padding_after[i] == 0;
  }
  return result;
}

// weight[o, kernel..., c] as [o, c, kernel...].
ir::Literal channels_first(const ir::Literal& weight) {
  const int64_t filters = weight.shape.front(), channels = weight.shape.back();
  const int64_t taps = filters * channels == 0 ? 0 : weight.elements() / (filters * channels);
  const auto size = static_cast<int64_t>(dtype_size(weight.dtype));
  std::vector<int64_t> shape = weight.shape;
  std::rotate(shape.begin() + 1, shape.end() - 1, shape.end());
  std::byte* data = nullptr;
  ir::Literal result = ir::Literal::allocate(weight.dtype, shape, &data);
  for (int64_t o = 0; o < filters; ++o) {
    for (int64_t t = 0; t < taps; ++t) {
      for (int64_t c = 0; c < channels; ++c) {
        const std::byte* source = weight.bytes.data() + ((o * taps + t) * channels + c) * size;
        std::copy(source, source + size, data + ((o * channels + c) * taps + t) * size);
      }
    }
  }
  result.replaceable = weight.replaceable;
  return result;
}

// The windows as rows, which are read where the input lies, in the order in which it lies: an image whose
// channels lie apart keeps them apart.
void lower_as_patches(Lowering& lowering, const ir::Node& node, const Window& window,
                      const Sizes& sizes) {
  const ir::Value *x = node.input(0), *weight = node.input(1);
  ir::Shape shape = node.output()->type.shape;
  shape.pop_back();
  const LoopSpace pixels = make_loops(shape, "i");
  const LoopSpace inside = make_loops({sizes.kernel.begin(), sizes.kernel.end()}, "w");
  const LoopSpace channel = make_loops({sizes.channels}, "c");
  Indices at = pixels.indices;
  for (size_t i = 0; i < window.rank(); ++i)
    at[window.spatial_axis(i)] = at[window.spatial_axis(i)] * window.stride[i] + inside.indices[i];
  at.push_back(channel.indices[0]);
  const auto view = lowering.view(x, at, channel.loops);
  const bool channels_last = !view || channel.loops.empty() || view->strides[0].is_constant(1);

  std::vector<Loop> loops = pixels.loops;
  Indices row = pixels.indices;
  for (const LoopSpace* part :
       channels_last ? std::array{&inside, &channel} : std::array{&channel, &inside}) {
    loops.insert(loops.end(), part->loops.begin(), part->loops.end());
    row.insert(row.end(), part->indices.begin(), part->indices.end());
  }
  const ir::Literal& literal = *lowering.literal_of(weight);
  const BufferId filters = channels_last ? lowering.dense(weight)
                                         : lowering.add_constant(weight->name + "_channels_first",
                                                                 channels_first(literal));
  ir::Shape rows_shape = shape;
  rows_shape.insert(rows_shape.end(), weight->type.shape.begin() + 1, weight->type.shape.end());
  if (!channels_last)
    std::rotate(rows_shape.begin() + static_cast<std::ptrdiff_t>(shape.size()),
                rows_shape.end() - 1, rows_shape.end());
  const BufferId rows =
      lowering.add_temporary(node.output()->name + "_rows", {x->type.dtype, rows_shape});
  lowering.emit(node, LoopNest{std::move(loops), {Store{rows, {}, row, lowering.load(x, at), {}}}});
  int64_t depth = sizes.channels;
  for (int64_t size : sizes.kernel) depth *= size;
  emit_matmul(lowering, node, rows, filters, depth);
}

// --- Two axes and a contraction of some width ---

void lower_as_convolution(Lowering& lowering, const ir::Node& node, const Window& window,
                          const Sizes& sizes, const IntegerConvolution* integer = nullptr) {
  const ir::Shape& x = node.input(0)->type.shape;
  const ir::Shape& shape = node.output()->type.shape;
  const bool flat = window.rank() == 1;  // one spatial axis: a height of 1
  const size_t last = window.rank() - 1;
  Convolution c;
  c.b = make_loop("b", shape[0]);
  c.y = make_loop("y", flat ? ir::Dim(1) : shape[1]);
  c.x = make_loop("x", shape[window.spatial_axis(last)]);
  c.o = make_loop("o", sizes.out);
  c.input = integer != nullptr ? integer->input : lowering.dense(node.input(0));
  c.weight = integer != nullptr ? integer->filters : lowering.dense(node.input(1));
  c.height = flat ? ir::Dim(1) : x[1];
  c.width = x[window.spatial_axis(last)];
  c.channels = sizes.channels;
  c.groups = sizes.groups;
  if (!flat) {
    c.kernel_h = sizes.kernel[0];
    c.stride_h = window.stride[0];
    c.dilation_h = window.dilation[0];
    c.pad_top = window.padding_before[0];
  }
  c.kernel_w = sizes.kernel[last];
  c.stride_w = window.stride[last];
  c.dilation_w = window.dilation[last];
  c.pad_left = window.padding_before[last];
  c.out = lowering.define(node.output());
  if (integer != nullptr) {
    c.formats = kIntegers;
    c.padding = integer->padding;
    c.epilogue = with_bias(lowering, node, integer->value(lowering, node, c.o.index), c.o.index);
  } else {
    c.formats = lowering.formats(c.input, c.weight, lowering.options().tf32_convolutions);
    c.epilogue = with_bias(lowering, node, accumulator(c.formats.accumulator), c.o.index);
  }
  lowering.emit(node, std::move(c));
}

// --- Integers ---

// A buffer with the elements of the view over all positions of a tensor, in their order, if it has them.
std::optional<BufferId> dense_buffer(const Lowering& lowering, const View& view,
                                     const ir::Shape& shape, const LoopSpace& space) {
  Index offset = view.offset;
  for (size_t i = 0; i < space.loops.size(); ++i)
    offset += view.strides[i] * Index(space.loops[i].index);
  const bool is_dense = offset == linearize(shape, space.indices) &&
                        lowering.elements(view.buffer) == ir::product(shape);
  return is_dense ? std::optional(view.buffer) : std::nullopt;
}

// The filters of a convolution of f32 or f64 whose operands are quantised, with one scale and zero point for the input, and
// one for each filter.
std::optional<SignedWeight> integer_filters(Lowering& lowering, const ir::Node& node) {
  const DType sum = accumulator_dtype(node);
  if (sum != DType::F32 && sum != DType::F64) return std::nullopt;
  const ir::Value *x = node.input(0), *weight = node.input(1);
  const LoopSpace pixels = make_loops(x->type.shape);
  const auto left = quantised(x, pixels.indices);
  if (!left || !is_uniform_along(lowering, *left, pixels.loops)) return std::nullopt;
  std::vector<Loop> loops;
  Indices at;
  for (const ir::Dim& size : weight->type.shape) {
    loops.push_back(make_loop("w", size));
    at.emplace_back(loops.back().index);
  }
  const auto right = quantised(weight, at);
  if (!right || !is_uniform_along(lowering, *right, {loops.begin() + 1, loops.end()}))
    return std::nullopt;
  return signed_weight(*right, loops);
}

bool has_padding(const Window& window) {
  for (size_t i = 0; i < window.rank(); ++i) {
    if (window.padding_before[i] != 0 || window.padding_after[i] != 0) return true;
  }
  return false;
}

// Where there is padding the zero point of the input is a constant.
std::optional<IntegerConvolution> integer_convolution(Lowering& lowering, const ir::Node& node,
                                                      const Window& window) {
  if (!lowering.traits().integer_convolutions) return std::nullopt;
  const ir::Value *x = node.input(0), *weight = node.input(1);
  const LoopSpace pixels = make_loops(x->type.shape);
  auto values = integer_filters(lowering, node);
  if (!values) return std::nullopt;

  IntegerConvolution result{byte_operand(lowering, x, pixels.indices, pixels.loops),
                            std::move(*values)};
  if (has_padding(window)) {
    const auto zero = as_scalar(result.left.zero_point);
    if (!zero || zero->integer < 0 || zero->integer > 255) return std::nullopt;
    result.padding = zero->integer;
  }
  const auto dense = dense_buffer(lowering, result.left.view, x->type.shape, pixels);
  result.input = dense ? *dense : lowering.byte_copy(x, DType::U8);
  result.filters = lowering.add_constant(weight->name + "_filters", result.weight.values);
  return result;
}

// Filters that are dequantized become constants for kernels of floats.
void fix_filters(Lowering& lowering, const ir::Value* weight) {
  if (lowering.literal_of(weight) != nullptr) return;
  std::vector<Loop> loops;
  Indices at;
  for (const ir::Dim& size : weight->type.shape) {
    loops.push_back(make_loop("w", size));
    at.emplace_back(loops.back().index);
  }
  const auto filters = quantised(weight, at);
  if (!filters) return;
  if (auto literal = floating_weight(*filters, loops, weight->type.dtype))
    lowering.define_constant(weight, std::move(*literal));
}

// --- Everything else ---

// weight[o, c, kernel...] or [o, kernel..., c] as [kernel..., c, o]: neighbouring filters are
// neighbours in memory.
ir::Literal filters_last(const ir::Literal& weight) {
  const int64_t filters = weight.shape[0], rest = weight.elements() / filters;
  const auto size = static_cast<int64_t>(dtype_size(weight.dtype));
  std::vector<int64_t> shape(weight.shape.begin() + 1, weight.shape.end());
  shape.push_back(filters);
  std::byte* data = nullptr;
  ir::Literal result = ir::Literal::allocate(weight.dtype, shape, &data);
  for (int64_t o = 0; o < filters; ++o) {
    for (int64_t r = 0; r < rest; ++r) {
      const std::byte* source = weight.bytes.data() + (o * rest + r) * size;
      std::copy(source, source + size, data + (r * filters + o) * size);
    }
  }
  result.replaceable = weight.replaceable;
  return result;
}

// Reads element [o, at...] of a weight.
using WeightReader = std::function<Expr(const Index& o, const Indices& at)>;

WeightReader weight_reader(Lowering& lowering, const ir::Node& node, const Window& window) {
  const ir::Value* weight = node.input(1);
  const ir::Literal* literal = lowering.literal_of(weight);
  if (window.channels_last && literal != nullptr) {
    const BufferId buffer =
        lowering.add_constant(weight->name + "_filters_last", filters_last(*literal));
    return [=](const Index& o, Indices at) {
      at.push_back(o);
      return load_at(buffer, weight->type.dtype, at);
    };
  }
  return [&lowering, weight](const Index& o, Indices at) {
    at.insert(at.begin(), o);
    return lowering.load(weight, at);
  };
}

// The loops of a convolution as a nest, and where its factors are.
struct NestLoops {
  LoopSpace out, inner;
  Index o;                // the filter
  WindowElement element;  // of the input
  Indices weight_at;      // in the filter
};

NestLoops nest_loops(const ir::Node& node, const Window& window, const Sizes& sizes) {
  const ir::Type& type = node.output()->type;
  NestLoops result{make_loops(type.shape), {}, {}, {}, {}};
  const Indices& at = result.out.indices;
  result.o = at[window.channel_axis(type.rank())];
  ir::Shape inner_shape = {sizes.channels / sizes.groups};
  for (int64_t size : sizes.kernel) inner_shape.emplace_back(size);
  result.inner = make_loops(inner_shape, "w");
  const Index c = result.inner.indices[0];
  const Indices kernel(result.inner.indices.begin() + 1, result.inner.indices.end());
  const Index group = ir::floordiv(result.o, sizes.out / sizes.groups);
  const Index channel = group * (sizes.channels / sizes.groups) + c;
  result.element = window_element(window, node.input(0)->type.shape, at, kernel, channel);
  result.weight_at = kernel;
  result.weight_at.insert(window.channels_last ? result.weight_at.end() : result.weight_at.begin(),
                          c);
  return result;
}

// Stores what is made of the sum of the products.
void emit_nest(Lowering& lowering, const ir::Node& node, const NestLoops& loops, Expr product,
               const std::function<Expr(Expr sum)>& finish) {
  NestBuilder builder(loops.out.loops);
  Expr sum = builder.reduce(ReduceOp::Sum, loops.inner.loops, std::move(product));
  Expr value = with_bias(lowering, node, finish(std::move(sum)), loops.o);
  builder.store({lowering.define(node.output()), {}, loops.out.indices, std::move(value), {}});
  lowering.emit(node, builder.finish());
}

void lower_as_nest(Lowering& lowering, const ir::Node& node, const Window& window,
                   const Sizes& sizes) {
  const NestLoops loops = nest_loops(node, window, sizes);
  const DType dtype = accumulator_dtype(node);
  const Expr pixel =
      cast(lowering.load(node.input(0), loops.element.at, loops.element.inside), dtype);
  const Expr weight = cast(weight_reader(lowering, node, window)(loops.o, loops.weight_at), dtype);
  emit_nest(lowering, node, loops, apply(Op::mul, {pixel, weight}), [](Expr sum) { return sum; });
}

// A nest of integers: i8 filters, and an input of either type of 8 bits. Where there are borders and zero is not the
// integer 0, every element has its zero point taken away; elsewhere the sums of the filters do that. False if the
// operands are not like that.
bool lower_as_integer_nest(Lowering& lowering, const ir::Node& node, const Window& window,
                           const Sizes& sizes) {
  const ir::Value *x = node.input(0), *weight = node.input(1);
  auto filters = integer_filters(lowering, node);
  if (!filters) return false;
  const NestLoops loops = nest_loops(node, window, sizes);
  const Quantised left = *quantised(x, loops.element.at);
  Expr zero_point = zero_point_of(lowering, left);
  const auto zero = as_scalar(zero_point);
  if (!zero && has_padding(window)) return false;
  const BufferId buffer =
      lowering.add_constant(weight->name + "_filters_last", filters_last(filters->values));
  Indices weight_at = loops.weight_at;
  weight_at.push_back(loops.o);
  const Expr& inside = loops.element.inside;
  Expr pixel = cast(lowering.load(left.node->input(0), left.at, inside), DType::I32);
  Expr factor = cast(load_at(buffer, DType::I8, weight_at), DType::I32);
  if (has_padding(window) && zero->integer != 0) {
    pixel = apply(Op::sub, {std::move(pixel), std::move(zero_point)});
    factor = cast(load_at(buffer, DType::I8, weight_at, inside), DType::I32);
    zero_point = constant_int(DType::I32, 0);
  }
  Indices filter(weight->type.rank(), Index(0));
  filter[0] = loops.o;
  const Quantised right = *quantised(weight, filter);
  const ByteOperand bytes{{}, zero_point, left};
  emit_nest(lowering, node, loops, apply(Op::mul, {pixel, factor}), [&](const Expr& sum) {
    return dequantised_sum(lowering, {bytes, right, *filters, loops.o, sum},
                           accumulator_dtype(node));
  });
  return true;
}

}  // namespace

void lower_convolution(Lowering& lowering, const ir::Node& node) {
  const Window window = window_of(node);
  const Sizes sizes = sizes_of(node, window);
  const TargetTraits& traits = lowering.traits();
  const bool wide = sizes.groups == 1 || sizes.channels / sizes.groups >= traits.min_group_channels;
  if (window.channels_last && wide && window.rank() <= 2) {
    if (const auto integer = integer_convolution(lowering, node, window)) {
      if (!is_pointwise(window, sizes))
        return lower_as_convolution(lowering, node, window, sizes, &*integer);
      return emit_matmul(lowering, node, integer->input, integer->filters, sizes.channels,
                         &*integer);
    }
  }
  if (window.channels_last && !wide && traits.integer_windows &&
      lower_as_integer_nest(lowering, node, window, sizes)) {
    return;
  }
  fix_filters(lowering, node.input(1));
  const bool fixed = window.channels_last && lowering.literal_of(node.input(1)) != nullptr;
  if (fixed && is_pointwise(window, sizes) && has_kernel(traits.matmul, node)) {
    return lower_as_matmul(lowering, node, sizes);
  }
  if (fixed && is_patches(window, sizes) && sizes.channels <= traits.max_patch_channels &&
      has_kernel(traits.matmul, node)) {
    return lower_as_patches(lowering, node, window, sizes);
  }
  if (fixed && wide && window.rank() <= 2 && has_kernel(traits.convolution, node)) {
    return lower_as_convolution(lowering, node, window, sizes);
  }
  lower_as_nest(lowering, node, window, sizes);
}

}  // namespace kiln::plan
