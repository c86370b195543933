// Normalisations, by their definitions, in double.
#include <algorithm>
#include <cmath>

#include "backends/reference/array.h"

namespace kiln::reference {
namespace {

using ir::Op;

// Calls body(positions of one line along the axis).
void for_each_line(const Sizes& shape, size_t axis,
                   const std::function<void(const std::vector<int64_t>&)>& body) {
  const Sizes strides = row_major_strides(shape);
  Sizes outer = shape;
  outer[axis] = 1;
  std::vector<int64_t> line(static_cast<size_t>(shape[axis]));
  for_each_index(outer, [&](const Sizes& index, int64_t) {
    const int64_t base = offset_of(index, strides);
    for (size_t k = 0; k < line.size(); ++k)
      line[k] = base + static_cast<int64_t>(k) * strides[axis];
    body(line);
  });
}

Array softmax(const Call& call) {
  const Array& x = call.operand(0);
  const bool logarithm = call.node.op == Op::log_softmax;
  Array result = call.result();
  for_each_line(x.shape, static_cast<size_t>(call.integer("axis")), [&](const auto& line) {
    double maximum = -INFINITY, sum = 0;
    for (int64_t i : line) maximum = std::max(maximum, x.as_double(i));
    for (int64_t i : line) sum += std::exp(x.as_double(i) - maximum);
    for (int64_t i : line) {
      const double shifted = x.as_double(i) - maximum;
      result.set(i, logarithm ? shifted - std::log(sum) : std::exp(shifted) / sum);
    }
  });
  return result;
}

struct Moments {
  double mean = 0, variance = 0;
};

Moments moments(const Array& x, int64_t begin, int64_t end) {
  Moments result;
  const auto count = static_cast<double>(end - begin);
  for (int64_t i = begin; i < end; ++i) result.mean += x.as_double(i) / count;
  for (int64_t i = begin; i < end; ++i) {
    const double d = x.as_double(i) - result.mean;
    result.variance += d * d / count;
  }
  return result;
}

double weight_at(const Call& call, size_t operand, int64_t i, double fallback) {
  return call.has(operand) ? call.operand(operand).as_double(i) : fallback;
}

// layer_norm and rms_norm: rows of the last `axes` axes.
Array row_norm(const Call& call) {
  const Array& x = call.operand(0);
  const double eps = call.node.attr<double>("eps");
  const bool centred = call.node.op == Op::layer_norm;
  Array result = call.result();
  int64_t row = 1;
  for (int64_t i = 0; i < call.integer("axes"); ++i)
    row *= x.shape[x.shape.size() - 1 - static_cast<size_t>(i)];
  for (int64_t begin = 0; row > 0 && begin < x.elements(); begin += row) {
    Moments m = moments(x, begin, begin + row);
    // mean(x^2) is the variance plus the squared mean.
    const double scale = 1 / std::sqrt((centred ? m.variance : m.variance + m.mean * m.mean) + eps);
    for (int64_t i = 0; i < row; ++i) {
      const double centre = centred ? m.mean : 0;
      const double normal = (x.as_double(begin + i) - centre) * scale;
      result.set(begin + i, normal * weight_at(call, 1, i, 1) + weight_at(call, 2, i, 0));
    }
  }
  return result;
}

Array group_norm(const Call& call) {
  const Array& x = call.operand(0);
  const int64_t groups = call.integer("groups"), channels = x.shape[1];
  const double eps = call.node.attr<double>("eps");
  Array result = call.result();
  if (x.elements() == 0) return result;
  const int64_t row = x.elements() / (x.shape[0] * groups);
  const int64_t channel_size = x.elements() / (x.shape[0] * channels);
  for (int64_t begin = 0; begin < x.elements(); begin += row) {
    const Moments m = moments(x, begin, begin + row);
    const double scale = 1 / std::sqrt(m.variance + eps);
    for (int64_t i = begin; i < begin + row; ++i) {
      const int64_t channel = i / channel_size % channels;
      result.set(i, (x.as_double(i) - m.mean) * scale * weight_at(call, 1, channel, 1) +
                        weight_at(call, 2, channel, 0));
    }
  }
  return result;
}

Array batch_norm(const Call& call) {
  const Array& x = call.operand(0);
  const double eps = call.node.attr<double>("eps");
  Array result = call.result();
  for_each_index(x.shape, [&](const Sizes& index, int64_t i) {
    const int64_t c = index[1];
    const double scale =
        call.operand(1).as_double(c) / std::sqrt(call.operand(4).as_double(c) + eps);
    result.set(
        i, (x.as_double(i) - call.operand(3).as_double(c)) * scale + call.operand(2).as_double(c));
  });
  return result;
}

}  // namespace

Array evaluate_normalise(const Call& call) {
  switch (call.node.op) {
    case Op::softmax:
    case Op::log_softmax:
      return softmax(call);
    case Op::group_norm:
      return group_norm(call);
    case Op::batch_norm:
      return batch_norm(call);
    default:
      return row_norm(call);
  }
}

}  // namespace kiln::reference
