#include "support/dtype.h"

#include <array>

namespace kiln {
namespace {

constexpr std::array<std::string_view, kDTypeCount> kNames = {"f32", "f64", "f16", "bf16", "i8",
                                                              "u8",  "i16", "i32", "i64",  "bool"};

}  // namespace

std::string_view dtype_name(DType dtype) { return kNames[static_cast<size_t>(dtype)]; }

std::optional<DType> dtype_from_name(std::string_view name) {
  for (size_t i = 0; i < kNames.size(); ++i) {
    if (kNames[i] == name) return static_cast<DType>(i);
  }
  return std::nullopt;
}

}  // namespace kiln
