#include "runtime/tensor.h"

#include <gtest/gtest.h>

#include <cstring>
#include <numeric>
#include <vector>

namespace kiln::runtime {
namespace {

TensorView make_view(const std::vector<int64_t>& shape, const std::vector<int64_t>& strides) {
  return {nullptr, DType::F32, shape, strides};
}

bool contiguous(const std::vector<int64_t>& shape, const std::vector<int64_t>& strides) {
  return is_contiguous(make_view(shape, strides));
}

TEST(Tensor, Contiguity) {
  EXPECT_TRUE(contiguous({2, 3}, {}));
  EXPECT_TRUE(contiguous({2, 3}, {3, 1}));
  EXPECT_FALSE(contiguous({2, 3}, {1, 2}));
  EXPECT_FALSE(contiguous({2, 3}, {4, 1}));
  EXPECT_TRUE(contiguous({1, 3}, {77, 1}));
  EXPECT_FALSE(contiguous({2, 1}, {3, 1}));
  EXPECT_TRUE(contiguous({2, 0, 5}, {9, 9, 9}));
  EXPECT_TRUE(contiguous({}, {}));
}

// For every element size: a [2, 3, 4] tensor read as [4, 2, 3] with permuted strides.
TEST(Tensor, CopiesStrided) {
  const std::vector<int64_t> shape = {4, 2, 3}, strides = {1, 12, 4};
  for (const DType dtype : {DType::U8, DType::F16, DType::F32, DType::I64}) {
    const size_t size = dtype_size(dtype);
    std::vector<uint8_t> from(24 * size), to(24 * size);
    std::iota(from.begin(), from.end(), uint8_t{0});
    copy_to_contiguous({from.data(), dtype, shape, strides},
                       reinterpret_cast<std::byte*>(to.data()));
    for (size_t i = 0; i < 24; ++i) {
      const size_t source = (i / 6) * 1 + (i / 3 % 2) * 12 + (i % 3) * 4;
      EXPECT_EQ(std::memcmp(&to[i * size], &from[source * size], size), 0) << i;
    }
  }
}

TEST(Tensor, CopiesContiguousAndScalars) {
  const float value = 2.5f;
  float copy = 0;
  copy_to_contiguous({const_cast<float*>(&value), DType::F32, {}, {}},
                     reinterpret_cast<std::byte*>(&copy));
  EXPECT_EQ(copy, value);
}

TEST(Tensor, ShapeText) {
  const std::vector<int64_t> shape = {2, 3};
  EXPECT_EQ(shape_str(shape), "[2, 3]");
  EXPECT_EQ(shape_str({}), "[]");
}

}  // namespace
}  // namespace kiln::runtime
