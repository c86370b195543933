#include "conformance/compare.h"

#include <cmath>
#include <sstream>

namespace kiln::conformance {

double tolerance(DType dtype) {
  switch (dtype) {
    case DType::F64:
      return 1e-12;
    case DType::F32:
      return 1e-6;
    case DType::F16:
      return 1e-3;
    case DType::BF16:
      return 8e-3;
    default:
      return 0;
  }
}

std::string difference(const ir::Literal& got, const ir::Literal& expected) {
  if (got.dtype != expected.dtype) return "the result has another dtype";
  if (got.shape != expected.shape) return "the result has another shape";
  double difference = 0, norm = 0;
  for (int64_t i = 0; i < got.elements(); ++i) {
    const std::string where = "element " + std::to_string(i) + ": got ";
    if (!is_floating(got.dtype)) {
      if (got.as_int(i) == expected.as_int(i)) continue;
      return where + std::to_string(got.as_int(i)) + ", expected " +
             std::to_string(expected.as_int(i));
    }
    const double a = got.as_double(i), b = expected.as_double(i);
    if (a == b || (std::isnan(a) && std::isnan(b))) continue;
    if (!std::isfinite(a) || !std::isfinite(b))
      return where + std::to_string(a) + ", expected " + std::to_string(b);
    difference += (a - b) * (a - b);
    norm += b * b;
  }
  const double relative = std::sqrt(difference) / std::sqrt(norm);
  if (difference == 0 || relative <= tolerance(got.dtype)) return "";
  std::ostringstream text;
  text << "the relative difference is " << relative << ", expected at most "
       << tolerance(got.dtype);
  return text.str();
}

}  // namespace kiln::conformance
