#include "support/dtype.h"

#include <array>
#include <limits>

namespace kiln {
namespace {

constexpr std::array<std::string_view, kDTypeCount> kNames = {
    "f32", "f64", "f16", "bf16", "i8", "u8", "i16", "i32", "i64", "bool", "f8e4m3"};

}  // namespace

std::string_view dtype_name(DType dtype) { return kNames[static_cast<size_t>(dtype)]; }

std::optional<DType> dtype_from_name(std::string_view name) {
  for (size_t i = 0; i < kNames.size(); ++i) {
    if (kNames[i] == name) return static_cast<DType>(i);
  }
  return std::nullopt;
}

int64_t least_integer(DType dtype) {
  if (!is_signed_integer(dtype)) return 0;
  return std::numeric_limits<int64_t>::min() >> (64 - 8 * dtype_size(dtype));
}

int64_t greatest_integer(DType dtype) {
  if (dtype == DType::Bool) return 1;
  return dtype == DType::U8 ? 255 : ~least_integer(dtype);
}

bool is_lossless(DType from, DType to) {
  if (from == to || from == DType::Bool) return true;
  if (from == DType::F8E4M3) return is_floating(to);
  if (to == DType::F8E4M3) return false;
  if (is_floating(from)) {
    return to == DType::F64 || (to == DType::F32 && from != DType::F64);
  }
  const int from_bits = static_cast<int>(dtype_size(from)) * 8;
  if (is_floating(to)) {
    const int mantissa = to == DType::F64 ? 53 : to == DType::F32 ? 24 : to == DType::F16 ? 11 : 8;
    return from_bits <= mantissa;
  }
  if (!is_integer(to)) return false;
  return dtype_size(to) > dtype_size(from) && (is_signed_integer(to) || !is_signed_integer(from));
}

bool casts_merge(DType from, DType middle, DType to, bool rounded) {
  return is_lossless(from, middle) && (rounded || from != to);
}

}  // namespace kiln
