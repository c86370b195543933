// Contractions, by their definitions, summed in double.
#include <cmath>

#include "backends/reference/array.h"

namespace kiln::reference {
namespace {

using ir::Op;

double dot(const double* a, int64_t stride_a, const double* b, int64_t stride_b, int64_t count) {
  double sum = 0;
  for (int64_t k = 0; k < count; ++k) sum += a[k * stride_a] * b[k * stride_b];
  return sum;
}

int64_t dot_int(const Array& a, int64_t at_a, int64_t stride_a, const Array& b, int64_t at_b,
                int64_t stride_b, int64_t count) {
  uint64_t sum = 0;
  for (int64_t k = 0; k < count; ++k) {
    sum += static_cast<uint64_t>(a.as_int(at_a + k * stride_a)) *
           static_cast<uint64_t>(b.as_int(at_b + k * stride_b));
  }
  return static_cast<int64_t>(sum);
}

Array matmul(const Call& call) {
  const Array &a = call.operand(0), &b = call.operand(1);
  const bool transposed = call.node.attr<bool>("transpose_b");
  Array result = call.result();
  const int64_t m = a.shape[a.shape.size() - 2], k = a.shape.back();
  const int64_t n = result.shape.back();
  const Sizes batch(result.shape.begin(), result.shape.end() - 2);
  const Sizes batch_a(a.shape.begin(), a.shape.end() - 2),
      batch_b(b.shape.begin(), b.shape.end() - 2);
  const int64_t stride_n = transposed ? k : 1, stride_k = transposed ? 1 : n;
  for_each_index(batch, [&](const Sizes& index, int64_t at) {
    const int64_t base_a = broadcast_offset(index, batch_a) * m * k;
    const int64_t base_b = broadcast_offset(index, batch_b) * k * n;
    for (int64_t i = 0; i < m; ++i) {
      for (int64_t j = 0; j < n; ++j) {
        const int64_t out = (at * m + i) * n + j;
        const int64_t row = base_a + i * k, column = base_b + j * stride_n;
        if (a.floating()) {
          result.set(out, dot(a.floats.data() + row, 1, b.floats.data() + column, stride_k, k));
        } else {
          result.set_int(out, dot_int(a, row, 1, b, column, stride_k, k));
        }
      }
    }
  });
  return result;
}

Array linear(const Call& call) {
  const Array &x = call.operand(0), &weight = call.operand(1);
  Array result = call.result();
  const int64_t k = weight.shape[1], n = weight.shape[0];
  for (int64_t out = 0; out < result.elements(); ++out) {
    const int64_t row = out / n * k, column = out % n * k;
    if (x.floating()) {
      const double bias = call.has(2) ? call.operand(2).as_double(out % n) : 0;
      result.set(out, bias + dot(x.floats.data() + row, 1, weight.floats.data() + column, 1, k));
    } else {
      const int64_t bias = call.has(2) ? call.operand(2).as_int(out % n) : 0;
      result.set_int(out, bias + dot_int(x, row, 1, weight, column, 1, k));
    }
  }
  return result;
}

// Positions of the parts of a shape in either layout: [N, C, spatial...] or [N, spatial..., C].
struct WindowShape {
  size_t channel_axis, first_spatial, spatial;
  explicit WindowShape(const Call& call, size_t rank)
      : channel_axis(call.node.attr<std::string>("layout") == "nhwc" ? rank - 1 : 1),
        first_spatial(channel_axis == 1 ? 2 : 1),
        spatial(rank - 2) {}
};

Array convolution(const Call& call) {
  const Array &x = call.operand(0), &weight = call.operand(1);
  const WindowShape at(call, x.shape.size());
  const Sizes &stride = call.ints("stride"), &padding = call.ints("padding_before");
  const Sizes& dilation = call.ints("dilation");
  Array result = call.result();
  const Sizes x_strides = row_major_strides(x.shape), w_strides = row_major_strides(weight.shape);
  const int64_t group_channels = weight.shape[at.channel_axis];
  const int64_t group_filters = weight.shape[0] / call.integer("groups");
  const Sizes kernel(
      weight.shape.begin() + static_cast<std::ptrdiff_t>(at.first_spatial),
      weight.shape.begin() + static_cast<std::ptrdiff_t>(at.first_spatial + at.spatial));
  for_each_index(result.shape, [&](const Sizes& index, int64_t i) {
    const int64_t filter = index[at.channel_axis];
    const int64_t first_channel = filter / group_filters * group_channels;
    double sum = call.has(2) ? call.operand(2).as_double(filter) : 0;
    for_each_index(kernel, [&](const Sizes& tap, int64_t) {
      int64_t x_at = index[0] * x_strides[0] + first_channel * x_strides[at.channel_axis];
      int64_t w_at = filter * w_strides[0];
      for (size_t d = 0; d < at.spatial; ++d) {
        const size_t axis = at.first_spatial + d;
        const int64_t position = index[axis] * stride[d] + tap[d] * dilation[d] - padding[d];
        if (position < 0 || position >= x.shape[axis]) return;
        x_at += position * x_strides[axis];
        w_at += tap[d] * w_strides[axis];
      }
      sum += dot(x.floats.data() + x_at, x_strides[at.channel_axis], weight.floats.data() + w_at,
                 w_strides[at.channel_axis], group_channels);
    });
    result.set(i, sum);
  });
  return result;
}

// The score's bias from the mask: 0 or -inf for a bool mask, its value for a floating one.
double mask_bias(const Call& call, const Sizes& index) {
  if (!call.has(3)) return 0;
  const Array& mask = call.operand(3);
  const int64_t at = broadcast_offset(index, mask.shape);
  if (mask.floating()) return mask.as_double(at);
  return mask.as_int(at) != 0 ? 0 : -INFINITY;
}

Array attention(const Call& call) {
  const Array &q = call.operand(0), &k = call.operand(1), &v = call.operand(2);
  const double scale = call.node.attr<double>("scale");
  const bool causal = call.node.attr<bool>("causal");
  Array result = call.result();
  const int64_t heads = q.shape[1], kv_heads = k.shape[1], rows = q.shape[2], keys = k.shape[2];
  const int64_t depth = q.shape[3], width = v.shape[3];
  std::vector<double> scores(static_cast<size_t>(keys));
  for_each_index({q.shape[0], heads, rows}, [&](const Sizes& at, int64_t row) {
    const int64_t kv = at[0] * kv_heads + at[1] / (heads / kv_heads);
    double maximum = -INFINITY, sum = 0;
    for (int64_t j = 0; j < keys; ++j) {
      double score = scale * dot(q.floats.data() + row * depth, 1,
                                 k.floats.data() + (kv * keys + j) * depth, 1, depth);
      score += mask_bias(call, {at[0], at[1], at[2], j});
      if (causal && j > at[2]) score = -INFINITY;
      scores[static_cast<size_t>(j)] = score;
      maximum = std::max(maximum, score);
    }
    if (maximum == -INFINITY) return;  // nothing kept: zeros
    for (double& score : scores) sum += score = std::exp(score - maximum);
    for (int64_t e = 0; e < width; ++e) {
      result.set(row * width + e,
                 dot(scores.data(), 1, v.floats.data() + kv * keys * width + e, width, keys) / sum);
    }
  });
  return result;
}

}  // namespace

Array evaluate_contract(const Call& call) {
  switch (call.node.op) {
    case Op::matmul:
      return matmul(call);
    case Op::linear:
      return linear(call);
    case Op::convolution:
      return convolution(call);
    default:
      return attention(call);
  }
}

}  // namespace kiln::reference
