#include "runtime/tensor.h"

#include <gtest/gtest.h>

#include <array>
#include <cstring>
#include <numeric>
#include <vector>

namespace kiln::runtime {
namespace {

TensorView make_view(const std::vector<int64_t>& shape, const std::vector<int64_t>& strides) {
  return {nullptr, DType::F32, shape, strides, {}};
}

bool contiguous(const std::vector<int64_t>& shape, const std::vector<int64_t>& strides) {
  return is_contiguous(make_view(shape, strides));
}

void copy(const TensorView& tensor, void* to) {
  const Status status =
      kHostMemory.copy_strided(copy_of(tensor, static_cast<std::byte*>(to)), 0, nullptr);
  EXPECT_TRUE(status.ok()) << status.message();
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
    copy({from.data(), dtype, shape, strides, {}}, to.data());
    for (size_t i = 0; i < 24; ++i) {
      const size_t source = (i / 6) * 1 + (i / 3 % 2) * 12 + (i % 3) * 4;
      EXPECT_EQ(std::memcmp(&to[i * size], &from[source * size], size), 0) << i;
    }
  }
}

TEST(Tensor, CopiesContiguousAndScalars) {
  const float value = 2.5f;
  float result = 0;
  copy({const_cast<float*>(&value), DType::F32, {}, {}, {}}, &result);
  EXPECT_EQ(result, value);
  const std::vector<int64_t> shape = {2, 3};
  std::vector<uint16_t> from = {1, 2, 3, 4, 5, 6}, to(6);
  copy({from.data(), DType::F16, shape, {}, {}}, to.data());
  EXPECT_EQ(to, from);
}

TEST(Tensor, ShapeText) {
  const std::vector<int64_t> shape = {2, 3};
  EXPECT_EQ(shape_str(shape), "[2, 3]");
  EXPECT_EQ(shape_str({}), "[]");
}

TEST(MemoryRangeTest, GoesFromTheFirstByteToTheLast) {
  std::array<float, 16> memory{};
  const auto range = [&](std::vector<int64_t> shape, std::vector<int64_t> strides, size_t first) {
    return range_of({memory.data() + first, DType::F32, shape, strides, {}});
  };
  EXPECT_EQ(range({2, 3}, {}, 0).bytes, 24u);
  EXPECT_EQ(range({2, 3}, {8, 2}, 1).bytes, 52u);
  EXPECT_EQ(range({2, 3}, {8, 2}, 1).data, memory.data() + 1);
  EXPECT_EQ(range({4}, {-2}, 7).data, memory.data() + 1);
  EXPECT_EQ(range({4}, {-2}, 7).bytes, 28u);
  EXPECT_EQ(range({5}, {0}, 3).bytes, 4u);
  EXPECT_EQ(range({5, 0}, {}, 3).bytes, 0u);
  EXPECT_TRUE(overlap(range({4}, {}, 0), range({4}, {}, 3)));
  EXPECT_FALSE(overlap(range({4}, {}, 0), range({4}, {}, 4)));
  EXPECT_FALSE(overlap(range({4}, {}, 0), range({0}, {}, 2)));
}

}  // namespace
}  // namespace kiln::runtime
