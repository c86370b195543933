// softmax, log_softmax and the norms.
#include <algorithm>
#include <cmath>

#include "backends/reference/tensor.h"

namespace kiln::reference {
namespace {

using ir::Op;

Literal softmax(const Call& call) {
  const Split split = split_at(call.shape(0), call.integer("axis"));
  std::vector<double> x = load<double>(call.input(0));
  const bool logarithm = call.node.op == Op::log_softmax;
  for (int64_t outer = 0; outer < split.outer; ++outer) {
    for (int64_t inner = 0; inner < split.inner; ++inner) {
      double* row = x.data() + outer * split.size * split.inner + inner;
      const auto at = [&](int64_t i) -> double& { return row[i * split.inner]; };
      double largest = -std::numeric_limits<double>::infinity(), sum = 0;
      for (int64_t i = 0; i < split.size; ++i) largest = std::max(largest, at(i));
      for (int64_t i = 0; i < split.size; ++i) sum += std::exp(at(i) - largest);
      for (int64_t i = 0; i < split.size; ++i) {
        const double shifted = at(i) - largest;
        at(i) = logarithm ? shifted - std::log(sum) : std::exp(shifted) / sum;
      }
    }
  }
  return store(x, call.dtype(), call.shape(0));
}

struct Moments {
  double mean = 0, variance = 0;
};

Moments moments(const double* x, int64_t count) {
  Moments result;
  for (int64_t i = 0; i < count; ++i) result.mean += x[i];
  result.mean /= static_cast<double>(count);
  for (int64_t i = 0; i < count; ++i)
    result.variance += (x[i] - result.mean) * (x[i] - result.mean);
  result.variance /= static_cast<double>(count);
  return result;
}

// Not of the moments: an infinity has no deviation from a mean.
double mean_of_squares(const double* x, int64_t count) {
  double sum = 0;
  for (int64_t i = 0; i < count; ++i) sum += x[i] * x[i];
  return sum / static_cast<double>(count);
}

std::vector<double> load_or(const Call& call, size_t i, int64_t count, double fallback) {
  return call.has(i) ? load<double>(call.input(i)) : std::vector<double>(count, fallback);
}

// Over the last axes; the weights have their shape.
Literal layer_norm(const Call& call) {
  const Sizes& shape = call.shape(0);
  const int64_t count = product(Sizes(shape.end() - call.integer("axes"), shape.end()));
  std::vector<double> x = load<double>(call.input(0));
  const std::vector<double> weight = load_or(call, 1, count, 1), bias = load_or(call, 2, count, 0);
  for (int64_t start = 0; start < static_cast<int64_t>(x.size()); start += count) {
    double* row = x.data() + start;
    const Moments m = call.node.op == Op::rms_norm ? Moments{0, mean_of_squares(row, count)}
                                                   : moments(row, count);
    const double scale = 1 / std::sqrt(m.variance + call.real("eps"));
    for (int64_t i = 0; i < count; ++i) row[i] = (row[i] - m.mean) * scale * weight[i] + bias[i];
  }
  return store(x, call.dtype(), shape);
}

// Over each group of channels of each sample; the weights are per channel.
Literal group_norm(const Call& call) {
  const Sizes& shape = call.shape(0);
  const int64_t channels = shape[1], groups = call.integer("groups");
  const int64_t inner = product(Sizes(shape.begin() + 2, shape.end()));
  const int64_t count = channels / groups * inner;
  std::vector<double> x = load<double>(call.input(0));
  const std::vector<double> weight = load_or(call, 1, channels, 1),
                            bias = load_or(call, 2, channels, 0);
  for (int64_t block = 0; block < shape[0] * groups; ++block) {
    double* row = x.data() + block * count;
    const Moments m = moments(row, count);
    const double scale = 1 / std::sqrt(m.variance + call.real("eps"));
    for (int64_t i = 0; i < count; ++i) {
      const int64_t channel = block % groups * (channels / groups) + i / inner;
      row[i] = (row[i] - m.mean) * scale * weight[channel] + bias[channel];
    }
  }
  return store(x, call.dtype(), shape);
}

Literal batch_norm(const Call& call) {
  const Split split = split_at(call.shape(0), 1);
  std::vector<double> x = load<double>(call.input(0));
  const std::vector<double> weight = load<double>(call.input(1)),
                            bias = load<double>(call.input(2));
  const std::vector<double> mean = load<double>(call.input(3)),
                            variance = load<double>(call.input(4));
  for (int64_t i = 0; i < static_cast<int64_t>(x.size()); ++i) {
    const int64_t channel = i / split.inner % split.size;
    const double scale = weight[channel] / std::sqrt(variance[channel] + call.real("eps"));
    x[i] = (x[i] - mean[channel]) * scale + bias[channel];
  }
  return store(x, call.dtype(), call.shape(0));
}

}  // namespace

Literal evaluate_normalise(const Call& call) {
  switch (call.node.op) {
    case Op::softmax:
    case Op::log_softmax:
      return softmax(call);
    case Op::layer_norm:
    case Op::rms_norm:
      return layer_norm(call);
    case Op::group_norm:
      return group_norm(call);
    default:
      return batch_norm(call);
  }
}

}  // namespace kiln::reference
