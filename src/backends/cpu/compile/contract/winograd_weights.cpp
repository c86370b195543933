#include "backends/cpu/compile/contract/winograd_weights.h"

#include <array>
#include <numbers>
#include <vector>

#include "support/error.h"

namespace kiln::cpu {

namespace {

constexpr int64_t kTaps = 3;
using Row = std::array<double, kTaps>;

// Row j of G is 1, p, p^2 over the product of p - q for the other points q, with p the j-th point; the last,
// of infinity, is the highest coefficient. For F(2, 3) the first row has its sign turned, as in B^T.
const std::vector<Row>& matrix(int64_t results) {
  constexpr double kRoot = std::numbers::sqrt2;
  static const std::vector<Row> kTwo = {{1, 0, 0}, {0.5, 0.5, 0.5}, {0.5, -0.5, 0.5}, {0, 0, 1}};
  static const std::vector<Row> kFour = {{1, 0, 0},
                                         {1.0 / 6, kRoot / 6, 1.0 / 3},
                                         {1.0 / 6, -kRoot / 6, 1.0 / 3},
                                         {-2.0 / 3, -kRoot / 3, -1.0 / 3},
                                         {-2.0 / 3, kRoot / 3, -1.0 / 3},
                                         {0, 0, 1}};
  return results == 2 ? kTwo : kFour;
}

std::vector<float> widened(const ir::Literal& filters) {
  std::vector<float> values(static_cast<size_t>(filters.elements()));
  for (size_t i = 0; i < values.size(); ++i)
    values[i] = static_cast<float>(filters.as_double(static_cast<int64_t>(i)));
  return values;
}

}  // namespace

bool has_winograd_weights(const ir::Literal& filters, int64_t results) {
  return (results == 2 || results == 4) &&
         (filters.dtype == DType::F32 || is_16_bit_float(filters.dtype)) &&
         filters.shape.size() == 4 && filters.shape[1] == kTaps && filters.shape[2] == kTaps;
}

ir::Literal winograd_weights(const ir::Literal& filters, int64_t results) {
  KILN_CHECK(has_winograd_weights(filters, results), "filters of 3x3");
  const std::vector<Row>& g = matrix(results);
  const auto side = static_cast<int64_t>(g.size());
  const int64_t count = filters.shape[0], channels = filters.shape[3];
  std::byte* bytes = nullptr;
  ir::Literal result = ir::Literal::allocate(DType::F32, {count, side, side, channels}, &bytes);
  const std::vector<float> values = widened(filters);
  const float* from = values.data();
  auto* to = reinterpret_cast<float*>(bytes);
  std::vector<double> half(static_cast<size_t>(side * kTaps * channels));  // [i][kx][c]: G g
  for (int64_t o = 0; o < count; ++o) {
    for (int64_t i = 0; i < side; ++i) {
      for (int64_t tap = 0; tap < kTaps * channels; ++tap) {
        double sum = 0;
        for (int64_t ky = 0; ky < kTaps; ++ky)
          sum += g[static_cast<size_t>(i)][static_cast<size_t>(ky)] *
                 static_cast<double>(from[ky * kTaps * channels + tap]);
        half[static_cast<size_t>(i * kTaps * channels + tap)] = sum;
      }
    }
    for (int64_t point = 0; point < side * side; ++point) {
      const Row& row = g[static_cast<size_t>(point % side)];
      const double* line = half.data() + point / side * kTaps * channels;
      for (int64_t c = 0; c < channels; ++c) {
        const double sum =
            row[0] * line[c] + row[1] * line[channels + c] + row[2] * line[2 * channels + c];
        to[point * channels + c] = static_cast<float>(sum);
      }
    }
    from += kTaps * kTaps * channels;
    to += side * side * channels;
  }
  return result;
}

}  // namespace kiln::cpu
