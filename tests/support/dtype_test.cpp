#include "support/dtype.h"

#include <gtest/gtest.h>

namespace kiln {
namespace {

TEST(DType, NamesAreRead) {
  for (int i = 0; i < kDTypeCount; ++i) {
    const auto dtype = static_cast<DType>(i);
    EXPECT_EQ(dtype_from_name(dtype_name(dtype)), dtype);
    EXPECT_GT(dtype_size(dtype), 0u);
  }
  EXPECT_EQ(dtype_from_name("f8"), std::nullopt);
}

TEST(DType, Kinds) {
  EXPECT_TRUE(is_floating(DType::BF16));
  EXPECT_FALSE(is_floating(DType::I8));
  EXPECT_TRUE(is_integer(DType::U8));
  EXPECT_FALSE(is_integer(DType::Bool));
  EXPECT_FALSE(is_signed_integer(DType::U8));
  EXPECT_TRUE(is_signed_integer(DType::I64));
  EXPECT_TRUE(is_floating(DType::F8E4M3) && is_storage_only(DType::F8E4M3));
  EXPECT_FALSE(is_16_bit_float(DType::F8E4M3) || is_integer(DType::F8E4M3));
}

TEST(DType, CastsMergeWhereTheMiddleKeepsEveryValue) {
  EXPECT_TRUE(casts_merge(DType::F16, DType::F32, DType::F64, true));
  EXPECT_TRUE(casts_merge(DType::F16, DType::F32, DType::I32, false));
  EXPECT_TRUE(casts_merge(DType::Bool, DType::F16, DType::Bool, true));
  EXPECT_TRUE(casts_merge(DType::I32, DType::F64, DType::I32, true));
  EXPECT_FALSE(casts_merge(DType::I32, DType::F32, DType::I32, true));
  EXPECT_FALSE(casts_merge(DType::F32, DType::F16, DType::F32, true));
  EXPECT_TRUE(casts_merge(DType::F8E4M3, DType::F16, DType::F32, true));
  EXPECT_TRUE(casts_merge(DType::F8E4M3, DType::F32, DType::F8E4M3, true));
  EXPECT_FALSE(casts_merge(DType::F32, DType::F8E4M3, DType::F32, true));
  // There and back rounds what is held in f32.
  EXPECT_TRUE(casts_merge(DType::BF16, DType::F32, DType::BF16, true));
  EXPECT_FALSE(casts_merge(DType::BF16, DType::F32, DType::BF16, false));
}

}  // namespace
}  // namespace kiln
