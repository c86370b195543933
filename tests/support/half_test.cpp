#include "support/half.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

namespace kiln {
namespace {

// The compiler's own half type as the oracle.
float f16_oracle(uint16_t bits) { return static_cast<float>(std::bit_cast<_Float16>(bits)); }
uint16_t f16_oracle(float value) { return std::bit_cast<uint16_t>(static_cast<_Float16>(value)); }

bool same(float a, float b) { return (std::isnan(a) && std::isnan(b)) || a == b; }

// Every float that lies on a grid of 2^12 bit patterns: all exponents, ties included.
template <typename Body>
void for_many_floats(const Body& body) {
  for (uint64_t bits = 0; bits < (uint64_t{1} << 32); bits += 0x1000)
    for (const uint32_t offset : {0u, 1u, 0xfffu})
      body(std::bit_cast<float>(static_cast<uint32_t>(bits) + offset));
}

TEST(Float16, ToF32) {
  for (uint32_t bits = 0; bits < 0x10000; ++bits)
    ASSERT_TRUE(
        same(f16_to_f32(static_cast<uint16_t>(bits)), f16_oracle(static_cast<uint16_t>(bits))))
        << bits;
}

TEST(Float16, FromF32) {
  for_many_floats([](float value) {
    if (std::isnan(value))
      ASSERT_TRUE(std::isnan(f16_oracle(f32_to_f16(value))));
    else
      ASSERT_EQ(f32_to_f16(value), f16_oracle(value)) << value;
  });
}

TEST(BFloat16, RoundTrips) {
  for (uint32_t bits = 0; bits < 0x10000; ++bits) {
    const float value = bf16_to_f32(static_cast<uint16_t>(bits));
    if (std::isnan(value))
      ASSERT_TRUE(std::isnan(bf16_to_f32(f32_to_bf16(value))));
    else
      ASSERT_EQ(f32_to_bf16(value), bits);
  }
}

// The result is the nearer of the two neighbours, the even one at a tie.
TEST(BFloat16, RoundsToNearestEven) {
  for_many_floats([](float value) {
    if (!std::isfinite(value)) return;
    const uint32_t bits = std::bit_cast<uint32_t>(value);
    const uint32_t below = bits >> 16, rest = bits & 0xffff;
    const bool up = rest > 0x8000 || (rest == 0x8000 && (below & 1) != 0);
    ASSERT_EQ(f32_to_bf16(value), below + (up ? 1 : 0)) << value;
  });
}

TEST(BFloat16, KeepsInfinityAndNaN) {
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  EXPECT_EQ(bf16_to_f32(f32_to_bf16(kInfinity)), kInfinity);
  EXPECT_EQ(bf16_to_f32(f32_to_bf16(-kInfinity)), -kInfinity);
  EXPECT_TRUE(std::isnan(bf16_to_f32(f32_to_bf16(std::bit_cast<float>(0x7f800001u)))));
}

// The values as the format says them, by code.
double f8e4m3_oracle(int code) {
  const int exponent = code >> 3 & 15, mantissa = code & 7;
  if ((code & 0x7f) == 0x7f) return std::numeric_limits<double>::quiet_NaN();
  const double magnitude =
      exponent == 0 ? std::ldexp(mantissa, -9) : std::ldexp(8 + mantissa, exponent - 10);
  return (code & 0x80) != 0 ? -magnitude : magnitude;
}

TEST(Float8, CodesAreValues) {
  for (int code = 0; code < 256; ++code) {
    const float value = f8e4m3_to_f32(static_cast<uint8_t>(code));
    ASSERT_TRUE(same(value, static_cast<float>(f8e4m3_oracle(code)))) << code;
    ASSERT_EQ(std::signbit(value), code >= 128) << code;
    ASSERT_EQ(f32_to_f8e4m3(value), code);
  }
}

// Of the two neighbours the nearer, the even one at a tie, and 448 for all that is greater.
TEST(Float8, RoundsToNearestEven) {
  for_many_floats([](float value) {
    const int code = f32_to_f8e4m3(value);
    ASSERT_EQ(code >= 128, std::signbit(value));
    const int magnitude = code & 0x7f;
    const double x = std::fabs(static_cast<double>(value));
    if (std::isnan(x)) {
      ASSERT_EQ(magnitude, 0x7f);
    } else if (x >= 448) {
      ASSERT_EQ(magnitude, 0x7e);
    } else {
      const double own = std::fabs(x - f8e4m3_oracle(magnitude));
      for (const int other : {magnitude - 1, magnitude + 1}) {
        if (other < 0 || other > 0x7e) continue;
        const double theirs = std::fabs(x - f8e4m3_oracle(other));
        ASSERT_TRUE(own < theirs || (own == theirs && magnitude % 2 == 0)) << value;
      }
    }
  });
}

}  // namespace
}  // namespace kiln
