#include "support/nearest.h"

#include <gtest/gtest.h>

#include <array>

namespace kiln {
namespace {

constexpr std::array<std::string_view, 3> kNames = {"fold_constants", "fold_batch_norm", "fuse"};

TEST(NearestName, IsTheOneThatNeedsFewestEdits) {
  EXPECT_EQ(nearest_name("fold_constant", kNames), "fold_constants");
  EXPECT_EQ(nearest_name("batch_norm", kNames), "fold_batch_norm");
  EXPECT_EQ(nearest_name("fuze", kNames), "fuse");
}

TEST(NearestName, IsEmptyWithoutCandidates) { EXPECT_EQ(nearest_name("x", {}), ""); }

}  // namespace
}  // namespace kiln
