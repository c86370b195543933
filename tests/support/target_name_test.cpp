#include "support/target_name.h"

#include <gtest/gtest.h>

namespace kiln {
namespace {

TEST(TargetName, HasATargetAndPerhapsAVariant) {
  EXPECT_EQ(*parse_target("cpu"), (TargetName{"cpu", ""}));
  EXPECT_EQ(*parse_target("cpu:x86-64-v3"), (TargetName{"cpu", "x86-64-v3"}));
  EXPECT_EQ(*parse_target("cuda:sm_90"), (TargetName{"cuda", "sm_90"}));
  for (const char* text : {"cpu", "cpu:x86-64-v3"}) EXPECT_EQ(parse_target(text)->str(), text);
}

TEST(TargetName, ListsHaveCommas) {
  EXPECT_EQ(*parse_targets("cpu"), (std::vector{TargetName{"cpu", ""}}));
  EXPECT_EQ(*parse_targets("cpu:a,cuda"),
            (std::vector{TargetName{"cpu", "a"}, TargetName{"cuda", ""}}));
}

TEST(TargetName, RefusesEverythingElse) {
  for (const char* text : {"", ":", "cpu:", ":sm_90", "cpu:a:b", "cpu x86", "cpu,", ",cpu", "a,,b"})
    EXPECT_EQ(parse_targets(text).status().code(), StatusCode::InvalidArgument) << text;
  EXPECT_EQ(
      parse_targets("cpu:a, cpu:b").status().message(),
      "[target] got \" cpu:b\", expected the name of a target and perhaps of a variant, as in "
      "cpu or cpu:x86-64-v3");
}

}  // namespace
}  // namespace kiln
