// Pools.
#include <algorithm>
#include <cmath>

#include "import/onnx/ops/common.h"

namespace kiln::import::onnx {
namespace {

struct Pool {
  Window window;
  std::vector<int64_t> extra;  // what ceil_mode adds behind the padding
};

// With ceil_mode a last, incomplete window counts if it starts inside the input or the padding
// before it.
// Of a size that varies the padding leaves room for as much as windows may miss, or reach out.
int64_t ceil_extra(const Window& window, const Dim& dim, size_t i) {
  const int64_t stride = window.stride[i];
  const int64_t most = window.dilation[i] * (window.kernel[i] - 1) - window.after[i];
  if (!dim.is_constant()) return std::clamp<int64_t>(most, 0, stride - 1);
  const int64_t size = dim.constant();
  const int64_t room =
      size + window.before[i] + window.after[i] - (window.dilation[i] * (window.kernel[i] - 1) + 1);
  if (room <= -stride) return 0;
  int64_t steps = (room + stride - 1) / stride;
  if (steps * stride >= size + window.before[i]) --steps;
  return std::max<int64_t>(0, steps * stride - room);
}

Pool read_pool(NodeCall& call, const Value* x) {
  const std::vector<int64_t> kernel = call.integers_or("kernel_shape", {});
  call.expect(!kernel.empty() && x->type.rank() == kernel.size() + 2,
              "an input of shape " + shape_text(x->type.shape),
              "rank " + std::to_string(kernel.size() + 2) + ", by kernel_shape");
  const Shape sizes = spatial_sizes(x);
  Pool pool{read_window(call, kernel, sizes), std::vector<int64_t>(kernel.size(), 0)};
  if (call.flag_or("ceil_mode", false))
    for (size_t i = 0; i < kernel.size(); ++i) pool.extra[i] = ceil_extra(pool.window, sizes[i], i);
  return pool;
}

std::vector<int64_t> sum(const std::vector<int64_t>& a, const std::vector<int64_t>& b) {
  std::vector<int64_t> result(a.size());
  std::ranges::transform(a, b, result.begin(), std::plus());
  return result;
}

ir::Attrs attributes(const Pool& pool) {
  return {{"kernel", pool.window.kernel},
          {"stride", pool.window.stride},
          {"padding_before", pool.window.before},
          {"padding_after", sum(pool.window.after, pool.extra)},
          {"layout", std::string("nchw")}};
}

bool dilates(const Window& window) {
  return window.dilation != std::vector<int64_t>(window.dilation.size(), 1);
}

// Input positions of each window along an axis, [count, kernel].
struct Positions {
  int64_t count = 0;
  std::vector<int64_t> at;
};

Positions positions(const Pool& pool, int64_t size, size_t i) {
  const Window& window = pool.window;
  const int64_t reach = window.dilation[i] * (window.kernel[i] - 1) + 1;
  Positions result;
  result.count =
      (size + window.before[i] + window.after[i] + pool.extra[i] - reach) / window.stride[i] + 1;
  for (int64_t o = 0; o < result.count; ++o)
    for (int64_t k = 0; k < window.kernel[i]; ++k)
      result.at.push_back(o * window.stride[i] - window.before[i] + k * window.dilation[i]);
  return result;
}

// Sums over windows, as a convolution of each channel with ones where the window has gaps.
Expr window_sums(NodeCall& call, Value* x, const Pool& pool) {
  if (!dilates(pool.window)) {
    ir::Attrs attrs = attributes(pool);
    attrs.emplace("count_padding", true);
    attrs.emplace("divisor", int64_t{1});
    return call.expr(call.make(Op::avg_pool, {x}, attrs));
  }
  Shape shape = x->type.shape;
  const Dim batch = shape[0], channels = shape[1];
  shape[0] = batch * channels;
  shape[1] = 1;
  Shape kernel{1, 1};
  for (const int64_t size : pool.window.kernel) kernel.emplace_back(size);
  Value* sums = call.make(Op::convolution,
                          {call.builder().reshape(x, shape), full(call, kernel, x->type.dtype, 1)},
                          {{"stride", pool.window.stride},
                           {"padding_before", pool.window.before},
                           {"padding_after", sum(pool.window.after, pool.extra)},
                           {"dilation", pool.window.dilation},
                           {"groups", int64_t{1}},
                           {"layout", std::string("nchw")}});
  Shape result = sums->type.shape;
  result[0] = batch;
  result[1] = channels;
  return call.expr(call.builder().reshape(sums, result));
}

// How many elements of each window count: those of the input, or of the padding, too.
Value* window_counts(NodeCall& call, const Value* x, const Pool& pool, bool counts_padding) {
  const Shape sizes = spatial_sizes(x);
  std::vector<double> counts{1};
  std::vector<int64_t> shape;
  for (size_t i = 0; i < sizes.size(); ++i) {
    const int64_t size = known_size(call, sizes[i], "an axis of this pool");
    const int64_t low = counts_padding ? -pool.window.before[i] : 0;
    const int64_t high = size + (counts_padding ? pool.window.after[i] : 0);
    const Positions axis = positions(pool, size, i);
    const int64_t kernel = pool.window.kernel[i];
    std::vector<double> products;
    for (const double outer : counts)
      for (int64_t o = 0; o < axis.count; ++o) {
        const auto begin = axis.at.begin() + o * kernel;
        products.push_back(
            outer * static_cast<double>(std::count_if(begin, begin + kernel, [&](int64_t at) {
              return at >= low && at < high;
            })));
      }
    counts = std::move(products);
    shape.push_back(axis.count);
  }
  return call.real_constant(x->type.dtype, counts, shape);
}

Value* import_average_pool(NodeCall& call) {
  Value* x = call.input(0);
  const Pool pool = read_pool(call, x);
  const bool counts_padding = call.flag_or("count_include_pad", false);
  const bool has_extra = pool.extra != std::vector<int64_t>(pool.extra.size(), 0);
  if (!dilates(pool.window) && !(counts_padding && has_extra)) {
    ir::Attrs attrs = attributes(pool);
    attrs.emplace("count_padding", counts_padding);
    return call.make(Op::avg_pool, {x}, attrs);
  }
  return composed(call, x, [&](const Expr& wide) {
    const Expr counts = call.expr(window_counts(call, wide.value(), pool, counts_padding));
    return window_sums(call, wide, pool) / counts;
  });
}

// Of each result, the flat place of its element in the input.
Value* max_indices(NodeCall& call, Value* x, const Pool& pool, bool column_major) {
  const Shape sizes = spatial_sizes(x);
  const size_t count = sizes.size();
  std::vector<int64_t> places{0}, shape;  // places of [outputs..., kernels...], axis by axis
  std::vector<double> inside{1};
  Value* windows = x;
  std::vector<int64_t> order{0, 1};
  int64_t elements = 1;
  std::vector<int64_t> strides(count);
  for (size_t n = 0; n < count; ++n) {
    const size_t i = column_major ? n : count - 1 - n;
    strides[i] = elements;
    elements *= known_size(call, sizes[i], "an axis with indices");
  }
  for (size_t i = 0; i < count; ++i) {
    const int64_t size = sizes[i].constant(), kernel = pool.window.kernel[i];
    const Positions axis = positions(pool, size, i);
    std::vector<int64_t> clamped, next_places;
    std::vector<double> next_inside;
    for (const int64_t at : axis.at) clamped.push_back(std::clamp<int64_t>(at, 0, size - 1));
    for (size_t p = 0; p < places.size(); ++p)
      for (const int64_t at : axis.at) {
        next_places.push_back(places[p] + std::clamp<int64_t>(at, 0, size - 1) * strides[i]);
        next_inside.push_back(at >= 0 && at < size ? inside[p] : 0);
      }
    places = std::move(next_places);
    inside = std::move(next_inside);
    const auto axis_index = static_cast<int64_t>(2 + 2 * i);
    windows = take(call, windows, axis_index, clamped);
    Shape split = windows->type.shape;
    split[static_cast<size_t>(axis_index)] = axis.count;
    split.insert(split.begin() + axis_index + 1, Dim(kernel));
    windows = call.builder().reshape(windows, split);
    shape.push_back(axis.count);
    shape.push_back(kernel);
    order.push_back(axis_index);
  }
  for (size_t i = 0; i < count; ++i) order.push_back(static_cast<int64_t>(3 + 2 * i));
  // The kernel's axes become one, the last.
  const auto last_axis = [&](Value* value, size_t lead, const std::vector<int64_t>& axes) {
    Value* moved = call.builder().permute(value, axes);
    Shape merged(moved->type.shape.begin(),
                 moved->type.shape.begin() + static_cast<int64_t>(lead + count));
    merged.push_back(ir::product(
        {moved->type.shape.begin() + static_cast<int64_t>(lead + count), moved->type.shape.end()}));
    return call.builder().reshape(moved, merged);
  };
  std::vector<int64_t> plain;
  for (size_t i = 2; i < order.size(); ++i) plain.push_back(order[i] - 2);
  windows = last_axis(windows, 2, order);
  const auto typed = [&](DType dtype, const std::vector<double>& values) {
    return last_axis(call.real_constant(dtype, values, shape), 0, plain);
  };
  const DType dtype = x->type.dtype;
  const double least = is_floating(dtype) ? -std::numeric_limits<double>::infinity()
                                          : static_cast<double>(least_integer(dtype));
  const Expr valid = call.expr(typed(DType::Bool, inside));
  const Expr kept =
      valid.select(call.expr(windows), call.expr(call.builder().scalar(dtype, least)));
  const auto axis = static_cast<int64_t>(count) + 2;
  Value* best = call.make(Op::argmax, {kept}, {{"axis", axis}, {"keepdim", true}});
  Value* flat = typed(DType::I64, std::vector<double>(places.begin(), places.end()));
  Value* place =
      call.make(Op::gather_elements, {call.builder().expand(flat, windows->type.shape), best},
                {{"axis", axis}});
  Shape result(windows->type.shape.begin(), windows->type.shape.end() - 1);
  const Expr channel = call.expr(iota(call.call(), result[0] * result[1]));
  Shape channels(result.size(), Dim(1));
  channels[0] = result[0];
  channels[1] = result[1];
  const Expr offset =
      call.expr(call.builder().reshape(channel * static_cast<double>(elements), channels));
  return call.expr(call.builder().reshape(place, result)) + offset;
}

std::vector<Value*> import_max_pool(NodeCall& call) {
  Value* x = call.input(0);
  const Pool pool = read_pool(call, x);
  ir::Attrs attrs = attributes(pool);
  attrs.emplace("dilation", pool.window.dilation);
  const bool column_major = call.flag_or("storage_order", false);
  return {call.make(Op::max_pool, {x}, attrs),
          call.output_used(1) ? max_indices(call, x, pool, column_major) : nullptr};
}

// The elements at the places that a max pool gave, and zeros.
Value* import_max_unpool(NodeCall& call) {
  Value *x = call.input(0), *index = call.input(1);
  const std::vector<int64_t> kernel = call.integers_or("kernel_shape", {});
  const Shape sizes = spatial_sizes(x);
  const Window window = read_window(call, kernel, sizes);
  Shape shape(x->type.shape.begin(), x->type.shape.begin() + 2);
  for (size_t i = 0; i < sizes.size(); ++i)
    shape.push_back((sizes[i] - 1) * window.stride[i] + kernel[i] - window.before[i] -
                    window.after[i]);
  const Dim elements = ir::product(shape), count = x->type.elements();
  if (call.has_input(2)) {
    const std::vector<Dim> wanted = call.dims(2);
    call.expect(wanted == shape, "an output_shape of " + shape_text(wanted), shape_text(shape));
  }
  ir::Builder& builder = call.builder();
  Value* target = full(call, {elements}, x->type.dtype, 0);
  Value* written = call.aten("aten.scatter.src", {{"self", target},
                                                  {"dim", Dim(0)},
                                                  {"index", builder.reshape(index, {count})},
                                                  {"src", builder.reshape(x, {count})}});
  return builder.reshape(written, shape);
}

double order_of(NodeCall& call) {
  const int64_t order = call.integer_or("p", 2);
  call.expect(order >= 1, "p = " + std::to_string(order), "1 or more");
  return static_cast<double>(order);
}

Expr power(const Expr& x, double order) {
  const Expr magnitude = x.apply(Op::abs);
  if (order == 1) return magnitude;
  return order == 2 ? x * x : magnitude.apply(Op::pow, order);
}

Expr root(const Expr& x, double order) {
  if (order == 1) return x;
  return order == 2 ? x.apply(Op::sqrt) : x.apply(Op::pow, 1 / order);
}

Value* import_lp_pool(NodeCall& call) {
  Value* x = call.input(0);
  const Pool pool = read_pool(call, x);
  const double order = order_of(call);
  return composed(call, x, [&](const Expr& wide) {
    return root(window_sums(call, power(wide, order), pool), order);
  });
}

std::vector<int64_t> spatial_axes(NodeCall& call, const Value* x) {
  call.expect(x->type.rank() >= 3, "rank " + std::to_string(x->type.rank()), "3 or more");
  return range(2, rank_of(x));
}

template <Op op>
Value* import_global(NodeCall& call) {
  Value* x = call.input(0);
  return reduce(call.call(), op, x, spatial_axes(call, x), true);
}

Value* import_global_lp(NodeCall& call) {
  Value* x = call.input(0);
  const double order = order_of(call);
  return composed(call, x, [&](const Expr& wide) {
    const std::vector<int64_t> axes = spatial_axes(call, x);
    return root(call.expr(reduce(call.call(), Op::reduce_sum, power(wide, order), axes, true)),
                order);
  });
}

constexpr OperatorRow kRows[] = {
    {"AveragePool", import_average_pool}, {"GlobalAveragePool", import_global<Op::reduce_mean>},
    {"GlobalLpPool", import_global_lp},   {"GlobalMaxPool", import_global<Op::reduce_max>},
    {"LpPool", import_lp_pool},           {"MaxPool", import_max_pool},
    {"MaxUnpool", import_max_unpool},
};

}  // namespace

OperatorRows pool_operators() { return kRows; }

}  // namespace kiln::import::onnx
