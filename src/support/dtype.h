// Element types shared by the compiler, the engine file and the runtime.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>

namespace kiln {

// Values are stored in engine files: append, never renumber.
enum class DType : uint8_t {
  F32 = 0,
  F64 = 1,
  F16 = 2,
  BF16 = 3,
  I8 = 4,
  U8 = 5,
  I16 = 6,
  I32 = 7,
  I64 = 8,
  Bool = 9,     // one byte, 0 or 1
  F8E4M3 = 10,  // 4 bits of exponent, 3 of mantissa, no infinities: PyTorch's float8_e4m3fn
};

inline constexpr int kDTypeCount = 11;

// Bytes of one element.
constexpr size_t dtype_size(DType dtype) {
  switch (dtype) {
    case DType::F64:
    case DType::I64:
      return 8;
    case DType::F32:
    case DType::I32:
      return 4;
    case DType::F16:
    case DType::BF16:
    case DType::I16:
      return 2;
    case DType::I8:
    case DType::U8:
    case DType::Bool:
    case DType::F8E4M3:
      return 1;
  }
  return 0;
}

// Short lower-case name as in the text IR: "f32", "bf16", "f8e4m3", "i64", "bool".
std::string_view dtype_name(DType dtype);
std::optional<DType> dtype_from_name(std::string_view name);

constexpr bool is_floating(DType dtype) { return dtype <= DType::BF16 || dtype == DType::F8E4M3; }
constexpr bool is_integer(DType dtype) { return dtype >= DType::I8 && dtype <= DType::I64; }
constexpr bool is_signed_integer(DType dtype) { return is_integer(dtype) && dtype != DType::U8; }
// Floating types that numbers are kept in and not computed with: they are moved, and cast.
constexpr bool is_storage_only(DType dtype) { return dtype == DType::F8E4M3; }
// The floating types that are computed with as f32.
constexpr bool is_16_bit_float(DType dtype) { return dtype == DType::F16 || dtype == DType::BF16; }
// The ends of an integer dtype's range; bool is 0 and 1.
int64_t least_integer(DType dtype);
int64_t greatest_integer(DType dtype);
// Whether every value of `from` is exactly a value of `to`.
bool is_lossless(DType from, DType to);
// Whether cast(cast(x, middle), to) is cast(x, to) for every x of dtype `from`. `rounded`: x is a
// value of `from` for certain. Otherwise it is a result of 16-bit arithmetic, which may be held in
// f32: casts there and back round it, and stay.
bool casts_merge(DType from, DType middle, DType to, bool rounded);

}  // namespace kiln
