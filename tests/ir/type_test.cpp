#include "ir/type.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "support/half.h"

namespace kiln::ir {
namespace {

TEST(TypeTest, PrintsAndCompares) {
  const Dim s = make_size_symbol("s", 1, 8, 4);
  const Type type{DType::F32, {s, 384}};
  EXPECT_EQ(type.str(), "f32[s, 384]");
  EXPECT_EQ((Type{DType::Bool, {}}).str(), "bool[]");
  EXPECT_EQ(type.elements(), s * 384);
  EXPECT_EQ(type, (Type{DType::F32, {s, 384}}));
  EXPECT_FALSE(type == (Type{DType::F16, {s, 384}}));
}

TEST(LiteralTest, HoldsScalarsOfEveryDType) {
  for (int i = 0; i < kDTypeCount; ++i) {
    const DType dtype = static_cast<DType>(i);
    const Literal one = Literal::scalar(dtype, 1);
    EXPECT_EQ(one.dtype, dtype);
    EXPECT_EQ(one.bytes.size(), dtype_size(dtype));
    EXPECT_EQ(one.as_double(0), 1) << dtype_name(dtype);
    EXPECT_EQ(one.as_int(0), 1) << dtype_name(dtype);
    EXPECT_TRUE(one.same_content(Literal::scalar_int(dtype, 1))) << dtype_name(dtype);
  }
  EXPECT_EQ(Literal::scalar(DType::Bool, 0.5).as_int(0), 1);
  EXPECT_EQ(Literal::scalar_int(DType::I64, INT64_MIN).as_int(0), INT64_MIN);
}

TEST(LiteralTest, AllocatesZeroes) {
  std::byte* data = nullptr;
  const Literal literal = Literal::allocate(DType::F16, {2, 3}, &data);
  EXPECT_EQ(literal.elements(), 6);
  EXPECT_EQ(literal.bytes.size(), 12u);
  EXPECT_EQ(literal.as_double(5), 0);
  Literal::set(data, DType::F16, 5, -1.5);
  EXPECT_EQ(literal.as_double(5), -1.5);
}

TEST(LiteralTest, ComparesByContent) {
  const Literal a = Literal::scalar(DType::F32, 2), b = Literal::scalar(DType::F32, 2);
  EXPECT_TRUE(a.same_content(b));
  EXPECT_EQ(a.content_hash(), b.content_hash());
  EXPECT_FALSE(a.same_content(Literal::scalar(DType::F32, 3)));
  EXPECT_FALSE(a.same_content(Literal::scalar_int(DType::I32, 2)));
  EXPECT_NE(a.content_hash(), Literal::scalar(DType::F32, 3).content_hash());
}

// Every f16 value survives the way to f32 and back, and so do the bits of NaN that matter.
TEST(HalfTest, F16RoundTripsExhaustively) {
  for (uint32_t bits = 0; bits <= 0xffff; ++bits) {
    const uint16_t half = static_cast<uint16_t>(bits);
    const float value = f16_to_f32(half);
    if (std::isnan(value)) {
      EXPECT_TRUE(std::isnan(f16_to_f32(f32_to_f16(value))));
    } else {
      ASSERT_EQ(f32_to_f16(value), half) << bits;
    }
  }
}

// Only what a file has can be read again.
TEST(LiteralTest, ForgetsTheBytesOfAFileAlone) {
  std::byte* data = nullptr;
  Literal literal = Literal::allocate(DType::F32, {100'000}, &data);
  for (int64_t i = 0; i < literal.elements(); ++i) Literal::set(data, DType::F32, i, 1.5);
  literal.forget();
  literal.file = std::make_shared<const FileMap>();  // not the one with these bytes
  literal.forget();
  for (int64_t i = 0; i < literal.elements(); ++i) ASSERT_EQ(literal.as_double(i), 1.5);
}

TEST(HalfTest, F16RoundsToNearestEven) {
  EXPECT_EQ(f32_to_f16(1.0f + 0x1p-11f), 0x3c00);             // a tie, down to even
  EXPECT_EQ(f32_to_f16(1.0f + 3 * 0x1p-11f), 0x3c02);         // a tie, up to even
  EXPECT_EQ(f32_to_f16(1.0f + 0x1p-11f + 0x1p-20f), 0x3c01);  // above the tie
  EXPECT_EQ(f32_to_f16(65519.0f), 0x7bff);
  EXPECT_EQ(f32_to_f16(65520.0f), 0x7c00);
  EXPECT_EQ(f32_to_f16(-1e30f), 0xfc00);
  EXPECT_EQ(f32_to_f16(0x1p-24f), 0x0001);
  EXPECT_EQ(f32_to_f16(0x1p-25f), 0x0000);    // a tie, down to zero
  EXPECT_EQ(f32_to_f16(0x1.8p-24f), 0x0002);  // a tie, up to even
  EXPECT_EQ(f32_to_f16(-0.0f), 0x8000);
  EXPECT_EQ(f32_to_f16(0x1.ff8p-15f), 0x03ff);
  EXPECT_EQ(f32_to_f16(0x1.ffcp-15f), 0x0400);  // a tie, up to the first normal number
}

TEST(HalfTest, Bf16RoundsToNearestEven) {
  for (uint32_t bits = 0; bits <= 0xffff; ++bits) {
    const uint16_t half = static_cast<uint16_t>(bits);
    if (std::isnan(bf16_to_f32(half))) continue;
    ASSERT_EQ(f32_to_bf16(bf16_to_f32(half)), half) << bits;
  }
  EXPECT_EQ(f32_to_bf16(1.0f + 0x1p-8f), 0x3f80);      // a tie, down to even
  EXPECT_EQ(f32_to_bf16(1.0f + 3 * 0x1p-8f), 0x3f82);  // a tie, up to even
  EXPECT_EQ(f32_to_bf16(std::numeric_limits<float>::max()), 0x7f80);
  EXPECT_TRUE(std::isnan(bf16_to_f32(f32_to_bf16(std::bit_cast<float>(0x7f800001u)))));
}

}  // namespace
}  // namespace kiln::ir
