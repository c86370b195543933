// matmul, linear and attention.
#include <algorithm>
#include <cmath>

#include "backends/reference/tensor.h"

namespace kiln::reference {
namespace {

using ir::Op;
using Matrix = std::vector<double>;

// [n, k] -> [k, n], for each of `batches` matrices.
Matrix transpose(const Matrix& x, int64_t batches, int64_t n, int64_t k) {
  Matrix result(x.size());
  for (int64_t b = 0; b < batches; ++b) {
    for (int64_t i = 0; i < n; ++i) {
      for (int64_t j = 0; j < k; ++j) result[b * n * k + j * n + i] = x[b * n * k + i * k + j];
    }
  }
  return result;
}

// c[m, n] += a[m, k] * b[k, n]. The inner loop is over n, so that the compiler can vectorise it
// without reordering sums.
void multiply(const double* a, const double* b, double* c, int64_t m, int64_t k, int64_t n) {
  for (int64_t i = 0; i < m; ++i) {
    for (int64_t p = 0; p < k; ++p) {
      const double factor = a[i * k + p];
      for (int64_t j = 0; j < n; ++j) c[i * n + j] += factor * b[p * n + j];
    }
  }
}

Literal matmul(const Call& call) {
  const Sizes &shape_a = call.shape(0), &shape_b = call.shape(1);
  const bool transposed = call.flag("transpose_b");
  const int64_t m = shape_a[shape_a.size() - 2], k = shape_a.back();
  const int64_t n = shape_b[shape_b.size() - (transposed ? 2 : 1)];
  const Sizes batch_a(shape_a.begin(), shape_a.end() - 2),
      batch_b(shape_b.begin(), shape_b.end() - 2);
  const Matrix a = load<double>(call.input(0));
  Matrix b = load<double>(call.input(1));
  if (transposed) b = transpose(b, product(batch_b), n, k);

  Sizes shape = broadcast(batch_a, batch_b);
  const Sizes batch = shape;
  shape.insert(shape.end(), {m, n});
  Matrix c(product(shape), 0.0);
  Walk at_a(batch, broadcast_strides(batch_a, batch)),
      at_b(batch, broadcast_strides(batch_b, batch));
  for (int64_t i = 0; i < product(batch); ++i, at_a.next(), at_b.next()) {
    multiply(a.data() + at_a.offset() * m * k, b.data() + at_b.offset() * k * n,
             c.data() + i * m * n, m, k, n);
  }
  return store(c, call.dtype(), shape);
}

Literal linear(const Call& call) {
  Sizes shape = call.shape(0);
  const int64_t k = shape.back(), n = call.shape(1)[0];
  shape.back() = n;
  const int64_t m = product(shape) / std::max<int64_t>(n, 1);
  Matrix c(m * n, 0.0);
  if (call.has(2)) {
    const Matrix bias = load<double>(call.input(2));
    for (int64_t i = 0; i < m * n; ++i) c[i] = bias[i % n];
  }
  const Matrix weight = transpose(load<double>(call.input(1)), 1, n, k);
  multiply(load<double>(call.input(0)).data(), weight.data(), c.data(), m, k, n);
  return store(c, call.dtype(), shape);
}

// What is added to each score: 0 or -inf for a bool mask.
Matrix load_mask(const Call& call, const Sizes& scores) {
  Matrix mask(product(scores), 0.0);
  if (!call.has(3)) return mask;
  const bool keep = call.input(3).dtype == DType::Bool;
  const Matrix values = load<double>(call.input(3));
  Walk at(scores, broadcast_strides(call.shape(3), scores));
  for (double& value : mask) {
    value = values[at.offset()];
    if (keep) value = value != 0 ? 0 : -std::numeric_limits<double>::infinity();
    at.next();
  }
  return mask;
}

// In place; a row where everything is masked becomes `masked`.
void softmax_row(double* row, int64_t count, double masked) {
  const double largest = *std::max_element(row, row + count);
  if (largest == -std::numeric_limits<double>::infinity()) {
    std::fill_n(row, count, masked);
    return;
  }
  double sum = 0;
  for (int64_t j = 0; j < count; ++j) sum += row[j] = std::exp(row[j] - largest);
  for (int64_t j = 0; j < count; ++j) row[j] /= sum;
}

Literal attention(const Call& call) {
  const Sizes &q_shape = call.shape(0), &k_shape = call.shape(1), &v_shape = call.shape(2);
  const int64_t batch = q_shape[0], heads = q_shape[1], rows = q_shape[2], depth = q_shape[3];
  const int64_t groups = k_shape[1], columns = k_shape[2], width = v_shape[3];
  const Matrix q = load<double>(call.input(0)), v = load<double>(call.input(2));
  const Matrix k = transpose(load<double>(call.input(1)), batch * groups, columns, depth);
  const Matrix mask = load_mask(call, {batch, heads, rows, columns});
  const double masked = call.node.attr_or("nan_rows", false) ? std::nan("") : 0;
  Matrix result(batch * heads * rows * width, 0.0), scores(rows * columns);
  for (int64_t head = 0; head < batch * heads; ++head) {
    const int64_t group = head / heads * groups + head % heads / (heads / groups);
    std::fill(scores.begin(), scores.end(), 0.0);
    multiply(q.data() + head * rows * depth, k.data() + group * depth * columns, scores.data(),
             rows, depth, columns);
    for (int64_t i = 0; i < rows && columns > 0; ++i) {
      double* row = scores.data() + i * columns;
      for (int64_t j = 0; j < columns; ++j) {
        row[j] = row[j] * call.real("scale") + mask[(head * rows + i) * columns + j];
        if (call.flag("causal") && j > i) row[j] = -std::numeric_limits<double>::infinity();
      }
      softmax_row(row, columns, masked);
    }
    multiply(scores.data(), v.data() + group * columns * width, result.data() + head * rows * width,
             rows, columns, width);
  }
  return store(result, call.dtype(), {batch, heads, rows, width});
}

}  // namespace

Literal evaluate_matmul(const Call& call) {
  return call.node.op == Op::linear ? linear(call) : matmul(call);
}

Literal evaluate_attention(const Call& call) { return attention(call); }

}  // namespace kiln::reference
