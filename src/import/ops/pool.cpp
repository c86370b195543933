// Pooling, adaptive pooling included.
#include <algorithm>
#include <limits>
#include <optional>

#include "import/ops/common.h"

namespace kiln::import {
namespace {

// Of a window whose largest element's place is asked for.
constexpr int64_t kMaxElements = 64;

struct Window {
  std::vector<int64_t> kernel, stride, padding, padding_after, dilation;
};

// With ceil_mode a last, incomplete window counts if it starts inside the input or the padding
// before it. Of a size that varies the padding leaves room for as much as windows may miss, or reach out.
int64_t ceil_mode_extra(Call& call, const Window& window, const ir::Dim& size, size_t i) {
  const int64_t most = window.dilation[i] * (window.kernel[i] - 1) - window.padding[i];
  if (!size.is_constant()) return std::clamp<int64_t>(most, 0, window.stride[i] - 1);
  const int64_t padded = size.constant() + 2 * window.padding[i];
  const int64_t reach = padded - window.dilation[i] * (window.kernel[i] - 1) - 1;
  call.expect(reach >= 0 || window.stride[i] > -reach, "a window beyond the input",
              "a smaller window");
  int64_t steps = (reach + window.stride[i] - 1) / window.stride[i];
  if (steps * window.stride[i] >= size.constant() + window.padding[i]) --steps;
  return std::max<int64_t>(0, steps * window.stride[i] - reach);
}

// PyTorch raises for an input without elements, and where no window fits.
void require_window(Call& call, const Window& window, const ir::Dim& size, size_t i) {
  const int64_t span = window.dilation[i] * (window.kernel[i] - 1) + 1;
  const ir::Dim reach = size + (window.padding[i] + window.padding_after[i] - span);
  const ir::Dim count = ir::floordiv(reach, window.stride[i]) + 1;
  call.builder().require(
      {ir::max(ir::min(size, count), 0),
       "a window of " + std::to_string(span) + " to fit into an axis of size " + size.str(),
       call.operation(), ir::Requirement::Kind::Sizes});
}

Window read_window(Call& call, const ir::Shape& sizes) {
  const size_t spatial = sizes.size();
  Window window;
  window.kernel = per_axis(call, call.integers("kernel_size"), spatial);
  window.stride = call.integers_or("stride", {});
  window.stride = window.stride.empty() ? window.kernel : per_axis(call, window.stride, spatial);
  for (int64_t stride : window.stride)
    call.expect(stride > 0, "stride " + std::to_string(stride), "1 or more");
  window.padding = per_axis(call, "padding", spatial, 0);
  window.dilation = per_axis(call, "dilation", spatial, 1);
  window.padding_after = window.padding;
  const bool is_ceil = call.boolean_or("ceil_mode", false);
  for (size_t i = 0; i < spatial; ++i) {
    if (is_ceil) window.padding_after[i] += ceil_mode_extra(call, window, sizes[i], i);
    if (!sizes[i].is_constant()) require_window(call, window, sizes[i], i);
  }
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
              "an input of shape " + shape_text(x->type.shape),
              "rank " + std::to_string(spatial + 2));
  const bool added = x->type.rank() == spatial + 1;
  Value* result = pool(added ? unsqueeze(call, x, 0) : x);
  if (!added) return result;
  return call.builder().reshape(
      result, ir::Shape(result->type.shape.begin() + 1, result->type.shape.end()));
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

// Element `offset` of every window, of x with its padding: [N, C, output...].
Value* window_elements(Call& call, Value* padded, const Window& window, const ir::Shape& output,
                       const std::vector<int64_t>& offset) {
  for (size_t i = 0; i < offset.size(); ++i) {
    padded = call.make(Op::slice, {padded},
                       {{"axis", static_cast<int64_t>(i) + 2},
                        {"start", ir::Dim(offset[i] * window.dilation[i])},
                        {"size", output[i]},
                        {"step", window.stride[i]}});
  }
  return padded;
}

// Where those elements are in the plane of the input, i64: [output...].
Expr window_places(Call& call, const Window& window, const ir::Shape& sizes,
                   const ir::Shape& output, const std::vector<int64_t>& offset) {
  ir::Builder& builder = call.builder();
  Expr place(call, as_value(builder, Number(int64_t{0}), DType::I64));
  for (size_t i = 0; i < sizes.size(); ++i) {
    const Expr steps = Expr(call, iota(call, output[i])) * static_cast<double>(window.stride[i]);
    const int64_t first = offset[i] * window.dilation[i] - window.padding[i];
    ir::Shape shape(sizes.size(), 1);
    shape[i] = output[i];
    const Expr along(call, builder.reshape(steps + static_cast<double>(first), shape));
    place = place * Expr(call, as_value(builder, Number(sizes[i]), DType::I64)) + along;
  }
  return place;
}

// Where the largest elements are: the first of equal ones, the last NaN. A window of nothing but the least number has its
// first place, which is why padding, which has that value too, is told apart.
Value* places_of_largest(Call& call, Value* x, const Window& window, const ir::Shape& output) {
  const ir::Shape sizes = spatial_sizes(x);
  const DType dtype = x->type.dtype;
  int64_t elements = 1;
  for (const int64_t size : window.kernel) elements *= size;
  call.expect(elements <= kMaxElements,
              "the indices of windows of " + std::to_string(elements) + " elements",
              "at most " + std::to_string(kMaxElements));
  ir::Shape before{0, 0}, after{0, 0};
  for (size_t i = 0; i < sizes.size(); ++i) {
    before.emplace_back(window.padding[i]);
    after.emplace_back(window.padding_after[i]);
  }
  const double least = is_floating(dtype) ? -std::numeric_limits<double>::infinity()
                                          : static_cast<double>(least_integer(dtype));
  const auto padded_with = [&](Value* value, double fill) {
    return pad_constant(call, value, before, after, fill);
  };
  Value* padded = padded_with(x, least);
  Value* inside = padded_with(
      call.make(Op::full, {}, {{"shape", x->type.shape}, {"dtype", DType::Bool}, {"value", 1.0}}),
      0);
  std::optional<Expr> best, place, found;
  std::vector<int64_t> offset(sizes.size(), 0);
  for (int64_t n = 0; n < elements; ++n) {
    const Expr element(call, window_elements(call, padded, window, output, offset));
    const Expr is_inside(call, window_elements(call, inside, window, output, offset));
    const Expr here = window_places(call, window, sizes, output, offset);
    if (!best) {
      best = element, found = is_inside;
      place = is_inside.select(here, here.constant(0));
    } else {
      const Expr first = is_inside * found->apply(Op::logical_not);
      Expr larger = element.apply(Op::gt, *best);
      if (is_floating(dtype)) larger = larger + element.apply(Op::isnan);
      const Expr takes = larger + first;
      best = takes.select(element, *best);
      place = takes.select(here, *place);
      found = *found + is_inside;
    }
    for (size_t i = sizes.size(); i-- > 0;) {
      if (++offset[i] < window.kernel[i]) break;
      offset[i] = 0;
    }
  }
  return *place;
}

template <size_t spatial>
std::vector<Value*> import_max_pool_with_indices(Call& call) {
  Value* largest = import_max_pool<spatial>(call);
  if (!call.output_used(1)) return {largest, nullptr};
  Value* places = with_batch(call, spatial, [&](Value* x) {
    const ir::Shape& shape = largest->type.shape;
    const ir::Shape output(shape.end() - spatial, shape.end());
    return places_of_largest(call, x, read_window(call, spatial_sizes(x)), output);
  });
  return {largest, places};
}

Value* matrix_constant(Call& call, DType dtype, const std::vector<double>& values,
                       std::vector<int64_t> shape) {
  std::byte* data = nullptr;
  ir::Literal literal = ir::Literal::allocate(dtype, std::move(shape), &data);
  for (size_t i = 0; i < values.size(); ++i)
    ir::Literal::set(data, dtype, static_cast<int64_t>(i), values[i]);
  return call.builder().constant(std::move(literal));
}

// How many elements of an axis whose size varies, or the padding around it, every window has: i64, with all the
// output's axes.
Expr counted_along(Call& call, const Window& window, const ir::Shape& sizes,
                   const ir::Shape& output, size_t i) {
  const auto stride = static_cast<double>(window.stride[i]);
  const auto padding = static_cast<double>(window.padding[i]);
  const Expr start = Expr(call, iota(call, output[i])) * stride - padding;
  const Expr end(call, as_value(call.builder(), Number(sizes[i] + window.padding[i]), DType::I64));
  const Expr counts =
      (start + static_cast<double>(window.kernel[i])).apply(Op::minimum, end) - start;
  ir::Shape shape(sizes.size(), 1);
  shape[i] = output[i];
  return {call, call.builder().reshape(counts, shape)};
}

// How many elements of its input or the padding around it every window has; what ceil_mode adds behind that is neither.
Value* counted(Call& call, const Window& window, const ir::Shape& sizes, const ir::Shape& output,
               DType dtype) {
  std::optional<Expr> product;
  for (size_t i = 0; i < sizes.size(); ++i) {
    if (!sizes[i].is_constant()) {
      const Expr along = counted_along(call, window, sizes, output, i);
      const Expr part(call, call.builder().cast(along, dtype));
      product = product ? *product * part : part;
      continue;
    }
    std::vector<double> counts;
    const int64_t end = sizes[i].constant() + window.padding[i];
    for (int64_t n = 0; n < output[i].constant(); ++n) {
      const int64_t start = n * window.stride[i] - window.padding[i];
      counts.push_back(static_cast<double>(std::min(start + window.kernel[i], end) - start));
    }
    std::vector<int64_t> shape(sizes.size(), 1);
    shape[i] = output[i].constant();
    const Expr along(call, matrix_constant(call, dtype, counts, shape));
    product = product ? *product * along : along;
  }
  return *product;
}

// Sums, and those divided.
Value* avg_pool_with_counts(Call& call, Value* x, const Window& window, ir::Attrs attrs) {
  attrs.emplace("count_padding", false);
  attrs.emplace("divisor", int64_t{1});
  const DType dtype = x->type.dtype;
  const Expr wide(call, call.builder().cast(x, compute_dtype(dtype)));
  const Expr sums(call, call.make(Op::avg_pool, {wide}, std::move(attrs)));
  const ir::Shape& shape = sums.value()->type.shape;
  const ir::Shape output(shape.begin() + 2, shape.end());
  const Expr counts(call,
                    counted(call, window, spatial_sizes(x), output, sums.value()->type.dtype));
  return call.builder().cast(sums / counts, dtype);
}

// Sums of windows: of one axis after the other.
Value* window_sums(Call& call, Value* padded, const Window& window) {
  constexpr int64_t kMostTaps = 256;
  for (size_t i = 0; i < window.kernel.size(); ++i) {
    const size_t axis = i + 2;
    call.expect(window.kernel[i] <= kMostTaps,
                "a window of " + std::to_string(window.kernel[i]) + " integers along an axis",
                "at most " + std::to_string(kMostTaps));
    const ir::Dim size =
        ir::floordiv(padded->type.shape[axis] - window.kernel[i], window.stride[i]) + 1;
    std::optional<Expr> sum;
    for (int64_t tap = 0; tap < window.kernel[i]; ++tap) {
      const Expr part(call, call.make(Op::slice, {padded},
                                      {{"axis", static_cast<int64_t>(axis)},
                                       {"start", ir::Dim(tap)},
                                       {"size", size},
                                       {"step", window.stride[i]}}));
      sum = sum ? *sum + part : part;
    }
    padded = *sum;
  }
  return padded;
}

// Integers: sums, and the numbers of elements that they are divided by, rounded towards zero.
Value* integer_avg_pool(Call& call, Value* x, const Window& window, bool count_padding) {
  const auto padded = [&](Value* value, const std::vector<int64_t>& before,
                          const std::vector<int64_t>& after, double fill) {
    ir::Shape front{0, 0}, back{0, 0};
    front.insert(front.end(), before.begin(), before.end());
    back.insert(back.end(), after.begin(), after.end());
    return pad_constant(call, value, front, back, fill);
  };
  const Expr sums(call,
                  window_sums(call, padded(x, window.padding, window.padding_after, 0), window));
  if (call.has("divisor_override"))
    return sums / static_cast<double>(call.integer("divisor_override"));
  ir::Shape shape = x->type.shape;
  shape[0] = shape[1] = 1;
  Value* ones =
      call.make(Op::full, {}, {{"shape", shape}, {"dtype", x->type.dtype}, {"value", 1.0}});
  ones = padded(ones, window.padding, window.padding, count_padding ? 1 : 0);
  std::vector<int64_t> extra = window.padding_after;
  for (size_t i = 0; i < extra.size(); ++i) extra[i] -= window.padding[i];
  ones = padded(ones, std::vector<int64_t>(extra.size(), 0), extra, 0);
  return sums / Expr(call, window_sums(call, ones, window));
}

template <size_t spatial>
Value* import_avg_pool(Call& call) {
  return with_batch(call, spatial, [&](Value* x) -> Value* {
    const Window window = read_window(call, spatial_sizes(x));
    const bool count_padding = call.boolean_or("count_include_pad", true);
    const bool has_extra = window.padding_after != window.padding;
    const bool has_padding = window.padding != std::vector<int64_t>(spatial, 0);
    if (!is_floating(x->type.dtype)) return integer_avg_pool(call, x, window, count_padding);
    ir::Attrs attrs = window_attrs(window);
    if (count_padding && has_extra && has_padding && !call.has("divisor_override"))
      return avg_pool_with_counts(call, x, window, std::move(attrs));
    attrs.emplace("count_padding", count_padding && !has_extra);
    if (call.has("divisor_override")) attrs.emplace("divisor", call.integer("divisor_override"));
    return call.make(Op::avg_pool, {x}, attrs);
  });
}

// Windows of an adaptive pool along one axis: result i covers [floor(i * n / m), ceil((i + 1) * n /
// m)).
struct Cover {
  int64_t size = 0;            // of the largest window
  std::vector<int64_t> index;  // [m, size]: positions; a shorter window repeats its last one
  std::vector<double> counts;  // [m, size]: 1, or 0 for repetitions
  std::vector<double> length;  // [m]
};

Cover cover(int64_t n, int64_t m) {
  Cover result;
  const auto start = [&](int64_t i) { return i * n / m; };
  const auto end = [&](int64_t i) { return ((i + 1) * n + m - 1) / m; };
  for (int64_t i = 0; i < m; ++i) result.size = std::max(result.size, end(i) - start(i));
  for (int64_t i = 0; i < m; ++i) {
    const int64_t length = end(i) - start(i);
    for (int64_t k = 0; k < result.size; ++k) {
      result.index.push_back(start(i) + std::min(k, length - 1));
      result.counts.push_back(k < length ? 1 : 0);
    }
    result.length.push_back(static_cast<double>(length));
  }
  return result;
}

// The windows along an axis: i64[m, largest]. Where the size is not known they are computed when the model runs.
struct AxisWindows {
  Value* index;   // positions; a shorter window repeats its last one
  Value* counts;  // bool: false for repetitions
  Value* length;  // i64[m]

  AxisWindows(Call& call, Value* x, int64_t axis, int64_t output) {
    const ir::Dim& size = x->type.shape[axis];
    call.expect(output > 0, "output size " + std::to_string(output), "1 or more");
    if (!size.is_constant()) {
      compute(call, x, axis, output);
      return;
    }
    call.expect(size.constant() > 0, "size 0", "1 or more");
    const Cover windows = cover(size.constant(), output);
    const std::vector<double> positions(windows.index.begin(), windows.index.end());
    index = matrix_constant(call, DType::I64, positions, {output, windows.size});
    counts = matrix_constant(call, DType::Bool, windows.counts, {output, windows.size});
    length = matrix_constant(call, DType::I64, windows.length, {output});
  }

  // [m, largest] or [m] in place of the axis of a tensor that has `after` axes behind it.
  static Expr along(Call& call, Value* values, int64_t after) {
    ir::Shape shape = values->type.shape;
    shape.resize(shape.size() + static_cast<size_t>(after), ir::Dim(1));
    return {call, call.builder().reshape(values, shape)};
  }

 private:
  void compute(Call& call, Value* x, int64_t axis, int64_t output) {
    const ir::Dim size = x->type.shape[axis];
    require_elements(call, x, {axis}, ir::Requirement::Kind::Sizes);
    const Expr number(call, as_value(call.builder(), Number(size), DType::I64));
    const Expr i(call, unsqueeze(call, iota(call, output), 1));
    const auto parts = static_cast<double>(output);
    const Expr start = (i * number).apply(Op::floor_div, parts);
    const Expr end = ((i + 1) * number + (parts - 1)).apply(Op::floor_div, parts);
    const Expr k(call, iota(call, ir::floordiv(size + (output - 1), output) + 1));
    const Expr elements = end - start;
    index = start + k.apply(Op::minimum, elements - 1);
    counts = k.apply(Op::lt, elements);
    length = call.builder().reshape(elements, {ir::Dim(output)});
  }
};

// One axis: windows of one size are gathered into an axis of their own and reduced.
Value* adaptive_axis(Call& call, Value* x, int64_t axis, int64_t output, bool is_max) {
  const AxisWindows windows(call, x, axis, output);
  Value* taken = call.make(Op::gather, {x, windows.index}, {{"axis", axis}});
  if (is_max) return reduce(call, Op::reduce_max, taken, {axis + 1}, false);
  const int64_t after = static_cast<int64_t>(x->type.rank()) - axis - 1;
  // Not a product with 0, which would make a NaN of an infinity.
  const Expr kept = AxisWindows::along(call, windows.counts, after)
                        .select({call, taken}, {call, call.constant_like(taken, 0)});
  const Expr sum(call, reduce(call, Op::reduce_sum, kept, {axis + 1}, false));
  const Expr length = AxisWindows::along(call, windows.length, after);
  return sum / Expr(call, call.builder().cast(length, x->type.dtype));
}

// Where the largest element of each window is along one axis, and in `places` where that is in the plane: the first of
// equal ones, and of NaN the last, as PyTorch takes them.
Value* adaptive_max_axis(Call& call, Value* x, Value*& places, int64_t axis, int64_t output) {
  const AxisWindows windows(call, x, axis, output);
  const auto take = [&](Value* values) {
    return call.make(Op::gather, {values, windows.index}, {{"axis", axis}});
  };
  Value* taken = take(x);
  const int64_t after = static_cast<int64_t>(x->type.rank()) - axis - 1;
  const Expr numbers = AxisWindows::along(call, iota(call, taken->type.shape[axis + 1]), after);
  const Expr of_nan = Expr(call, taken).apply(Op::isnan).select(numbers, numbers.constant(-1));
  const Expr nan(call, reduce(call, Op::reduce_max, of_nan, {axis + 1}, true));
  const Expr largest(call, call.make(Op::argmax, {taken}, {{"axis", axis + 1}, {"keepdim", true}}));
  const Expr found = nan.apply(Op::ge, 0).select(nan, largest);
  const auto chosen = [&](Value* values) {
    Value* kept = call.make(Op::gather_elements, {values, found}, {{"axis", axis + 1}});
    ir::Shape shape = kept->type.shape;
    shape.erase(shape.begin() + axis + 1);
    return call.builder().reshape(kept, shape);
  };
  places = chosen(take(places));
  return chosen(taken);
}

bool divides(const ir::Dim& size, int64_t output) {
  return size.is_constant() && output > 0 && size.constant() % output == 0;
}

// All windows are equal: an ordinary pool.
Value* even_pool(Call& call, Value* x, const std::vector<int64_t>& output, bool is_max) {
  const ir::Shape sizes = spatial_sizes(x);
  Window window;
  for (size_t i = 0; i < sizes.size(); ++i)
    window.kernel.push_back(sizes[i].constant() / output[i]);
  window.stride = window.kernel;
  window.padding = window.padding_after = std::vector<int64_t>(sizes.size(), 0);
  ir::Attrs attrs = window_attrs(window);
  if (is_max) {
    attrs.emplace("dilation", std::vector<int64_t>(sizes.size(), 1));
  } else {
    attrs.emplace("count_padding", false);
  }
  return call.make(is_max ? Op::max_pool : Op::avg_pool, {x}, attrs);
}

Value* uneven_pool(Call& call, Value* x, const std::vector<int64_t>& output, bool is_max) {
  const DType dtype = x->type.dtype;
  if (is_16_bit_float(dtype)) x = call.builder().cast(x, DType::F32);
  for (size_t i = 0; i < output.size(); ++i)
    x = adaptive_axis(call, x, static_cast<int64_t>(i) + 2, output[i], is_max);
  return call.builder().cast(x, dtype);
}

Value* adaptive_pool(Call& call, size_t spatial, bool is_max) {
  return with_batch(call, spatial, [&](Value* x) -> Value* {
    const ir::Shape sizes = spatial_sizes(x);
    const std::vector<int64_t> output = per_axis(call, call.integers("output_size"), spatial);
    if (output == std::vector<int64_t>(spatial, 1)) {
      return reduce(call, is_max ? Op::reduce_max : Op::reduce_mean, x,
                    range(2, static_cast<int64_t>(spatial) + 2), true);
    }
    bool even = true;
    for (size_t i = 0; i < spatial; ++i) even = even && divides(sizes[i], output[i]);
    return even ? even_pool(call, x, output, is_max) : uneven_pool(call, x, output, is_max);
  });
}

template <size_t spatial>
Value* import_adaptive_avg_pool(Call& call) {
  return adaptive_pool(call, spatial, false);
}

// The last axis first: of equal elements the first in row-major order is taken.
template <size_t spatial>
std::vector<Value*> import_adaptive_max_pool(Call& call) {
  Value* largest = adaptive_pool(call, spatial, true);
  if (!call.output_used(1)) return {largest, nullptr};
  Value* places = with_batch(call, spatial, [&](Value* x) {
    const std::vector<int64_t> output = per_axis(call, call.integers("output_size"), spatial);
    const ir::Shape sizes = spatial_sizes(x);
    Value* numbers = iota(call, ir::product(sizes));
    Value* places = call.builder().expand(call.builder().reshape(numbers, sizes), x->type.shape);
    for (size_t i = spatial; i-- > 0;)
      x = adaptive_max_axis(call, x, places, static_cast<int64_t>(i) + 2, output[i]);
    return places;
  });
  return {largest, places};
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
