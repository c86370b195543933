#include "backends/cuda/compile/emit/literals.h"

#include <bit>
#include <cmath>
#include <cstdio>
#include <limits>

#include "backends/cuda/compile/emit/emitter.h"

namespace kiln::cuda {
namespace {

std::string printed(const char* format, auto value) {
  char text[64];
  std::snprintf(text, sizeof text, format, value);
  return text;
}

}  // namespace

std::string floating_literal(DType dtype, double number) {
  const bool wide = dtype == DType::F64;
  if (!wide) number = static_cast<float>(number);
  if (!std::isfinite(number)) {
    if (wide) {
      const auto bits = std::bit_cast<uint64_t>(number);
      return "__longlong_as_double(" + printed("0x%llxll", static_cast<unsigned long long>(bits)) +
             ")";
    }
    return "__int_as_float(" +
           printed("0x%x", std::bit_cast<uint32_t>(static_cast<float>(number))) + ")";
  }
  const std::string text = printed("%a", number) + (wide ? "" : "f");
  return std::signbit(number) ? "(" + text + ")" : text;
}

std::string integer_literal(DType dtype, int64_t number) {
  if (dtype == DType::Bool) return number != 0 ? "true" : "false";
  if (dtype == DType::I64) {
    if (number == std::numeric_limits<int64_t>::min()) return "(-9223372036854775807ll - 1)";
    const std::string text = std::to_string(number) + "ll";
    return number < 0 ? "(" + text + ")" : text;
  }
  if (dtype == DType::I32 && number == std::numeric_limits<int32_t>::min())
    return "(-2147483647 - 1)";
  const std::string text = std::to_string(number);
  if (dtype == DType::I32) return number < 0 ? "(" + text + ")" : text;
  return "(" + std::string(register_type(dtype)) + ")" + (number < 0 ? "(" + text + ")" : text);
}

}  // namespace kiln::cuda
