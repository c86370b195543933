// Convolution with any number of spatial axes.
#include <algorithm>

#include "backends/reference/layout.h"

namespace kiln::reference {
namespace {

using Values = std::vector<double>;

struct Geometry {
  int64_t batch, channels, filters, groups;
  Sizes input, kernel, output;  // spatial
  Sizes stride, padding, dilation;
  Sizes rows;           // of the output: all axes but the last
  Sizes input_strides;  // of one plane
};

Geometry read_geometry(const Call& call, const Sizes& x, const Sizes& weight) {
  Geometry g{x[0],
             x[1],
             weight[0],
             call.integer("groups"),
             {x.begin() + 2, x.end()},
             {weight.begin() + 2, weight.end()},
             {},
             call.integers("stride"),
             call.integers("padding_before"),
             call.integers("dilation"),
             {},
             {}};
  const Sizes& after = call.integers("padding_after");
  for (size_t i = 0; i < g.input.size(); ++i) {
    const int64_t reach =
        g.input[i] + g.padding[i] + after[i] - g.dilation[i] * (g.kernel[i] - 1) - 1;
    g.output.push_back(reach < 0 ? 0 : reach / g.stride[i] + 1);
  }
  g.rows.assign(g.output.begin(), g.output.end() - 1);
  g.input_strides = row_major_strides(g.input);
  return g;
}

// The index of step `i` of an odometer over a shape.
Sizes unflatten(int64_t i, const Sizes& shape) {
  Sizes index(shape.size());
  for (size_t d = shape.size(); d-- > 0; i /= shape[d]) index[d] = i % shape[d];
  return index;
}

// Output columns [begin, end) for which column * stride + shift is inside [0, size).
struct Columns {
  int64_t begin = 0, end = 0;
};

Columns inside_columns(int64_t stride, int64_t shift, int64_t size, int64_t width) {
  const auto first_at_least = [&](int64_t value) {
    return value <= 0 ? 0 : (value + stride - 1) / stride;
  };
  return {std::min(first_at_least(-shift), width), std::min(first_at_least(size - shift), width)};
}

// For a kernel position: adds weight * input to all outputs of one plane, row by row along the last
// axis.
void add_plane(const Geometry& g, const Sizes& position, double weight, const double* input,
               double* output) {
  const size_t last = g.input.size() - 1;
  const int64_t width = g.output[last], stride = g.stride[last];
  const int64_t shift = position[last] * g.dilation[last] - g.padding[last];
  const Columns columns = inside_columns(stride, shift, g.input[last], width);
  Sizes index(last, 0);
  for (int64_t row = 0; row < product(g.rows); ++row) {
    int64_t start = shift;
    bool inside = true;
    for (size_t d = 0; d < last; ++d) {
      const int64_t at = index[d] * g.stride[d] - g.padding[d] + position[d] * g.dilation[d];
      inside = inside && at >= 0 && at < g.input[d];
      start += at * g.input_strides[d];
    }
    double* target = output + row * width;
    for (int64_t i = columns.begin; inside && i < columns.end; ++i)
      target[i] += weight * input[start + i * stride];
    for (size_t d = last; d-- > 0 && ++index[d] == g.rows[d];) index[d] = 0;
  }
}

Values convolve(const Geometry& g, const Values& x, const Values& weight, const Values& bias) {
  const int64_t in_plane = product(g.input), out_plane = product(g.output),
                taps = product(g.kernel);
  const int64_t group_channels = g.channels / g.groups, group_filters = g.filters / g.groups;
  Values result(g.batch * g.filters * out_plane);
  for (int64_t i = 0; i < g.batch * g.filters; ++i) {
    const int64_t sample = i / g.filters, filter = i % g.filters, group = filter / group_filters;
    double* output = result.data() + i * out_plane;
    std::fill_n(output, out_plane, bias.empty() ? 0.0 : bias[filter]);
    for (int64_t c = 0; c < group_channels; ++c) {
      const double* input =
          x.data() + (sample * g.channels + group * group_channels + c) * in_plane;
      for (int64_t tap = 0; tap < taps; ++tap) {
        const double factor = weight[(filter * group_channels + c) * taps + tap];
        add_plane(g, unflatten(tap, g.kernel), factor, input, output);
      }
    }
  }
  return result;
}

}  // namespace

Literal channels_first(const Literal& x) {
  Sizes shape = x.shape;
  const int64_t channels = shape.back();
  shape.pop_back();
  shape.insert(shape.begin() + 1, channels);
  const Sizes strides = row_major_strides(x.shape);
  return rearrange(x, shape, [&](const Sizes& index) {
    int64_t offset = index[0] * strides[0] + index[1];
    for (size_t i = 2; i < index.size(); ++i) offset += index[i] * strides[i - 1];
    return offset;
  });
}

Literal channels_last(const Literal& x) {
  Sizes shape = x.shape;
  shape.push_back(shape[1]);
  shape.erase(shape.begin() + 1);
  const Sizes strides = row_major_strides(x.shape);
  return rearrange(x, shape, [&](const Sizes& index) {
    int64_t offset = index[0] * strides[0] + index.back() * strides[1];
    for (size_t i = 1; i + 1 < index.size(); ++i) offset += index[i] * strides[i + 1];
    return offset;
  });
}

Literal evaluate_convolution(const Call& call) {
  const bool last = call.text("layout") == "nhwc";
  const Literal x = last ? channels_first(call.input(0)) : call.input(0);
  const Literal weight = last ? channels_first(call.input(1)) : call.input(1);
  const Geometry g = read_geometry(call, x.shape, weight.shape);
  const Values bias = call.has(2) ? load<double>(call.input(2)) : Values{};
  Sizes shape{g.batch, g.filters};
  shape.insert(shape.end(), g.output.begin(), g.output.end());
  const DType dtype = call.node.attr_or("result", call.dtype());
  const Literal result =
      store(convolve(g, load<double>(x), load<double>(weight), bias), dtype, shape);
  return last ? channels_last(result) : result;
}

}  // namespace kiln::reference
