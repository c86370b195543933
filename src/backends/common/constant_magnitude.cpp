#include "backends/common/constant_magnitude.h"

#include <cmath>
#include <limits>

namespace kiln::backend {

namespace {

// Elements: they are looked at for each vector that is emitted.
constexpr int64_t kMostLookedAt = 1 << 14;
// Scales of 2^-2 keep sums of 2^31 well within i32; biases, and sums of weights, are larger.
constexpr double kBounds[] = {0x1p-2, 0x1p12, 0x1p28};

}  // namespace

double magnitude_bound(const plan::Buffer& buffer) {
  constexpr double kUnknown = std::numeric_limits<double>::infinity();
  const ir::Literal& literal = buffer.literal;
  if (buffer.kind != plan::BufferKind::Constant || literal.replaceable ||
      literal.elements() > kMostLookedAt) {
    return kUnknown;
  }
  double largest = 0;
  for (int64_t i = 0; i < literal.elements(); ++i) {
    const double element = std::abs(literal.as_double(i));
    if (!(element <= largest)) largest = element;
    if (std::isnan(element)) return kUnknown;
  }
  for (const double bound : kBounds)
    if (largest <= bound) return bound;
  return kUnknown;
}

}  // namespace kiln::backend
