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
}

}  // namespace
}  // namespace kiln
