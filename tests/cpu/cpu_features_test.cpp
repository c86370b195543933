// What this machine has, by the names that programs list.
#include "backends/cpu/device/cpu_features.h"

#include <gtest/gtest.h>

#include <fstream>
#include <string>

namespace kiln::cpu {
namespace {

bool kernel_lists(const std::string& flag) {
  std::ifstream file("/proc/cpuinfo");
  std::string line;
  while (std::getline(file, line))
    if (line.starts_with("flags")) return (line + " ").find(" " + flag + " ") != std::string::npos;
  return false;
}

TEST(CpuFeatures, AgreeWithTheKernel) {
  EXPECT_EQ(has_cpu_feature("avx2"), kernel_lists("avx2") && kernel_lists("fma"));
  EXPECT_EQ(has_cpu_feature("avx512"), kernel_lists("avx512f") && kernel_lists("avx512vl"));
  EXPECT_EQ(has_cpu_feature("avx512bf16"), kernel_lists("avx512_bf16"));
  EXPECT_EQ(has_cpu_feature("avx512vnni"), kernel_lists("avx512_vnni"));
  EXPECT_EQ(has_cpu_feature("avxvnni"), kernel_lists("avx_vnni"));
  EXPECT_EQ(has_cpu_feature("avx512vbmi"), kernel_lists("avx512vbmi"));
  EXPECT_EQ(has_cpu_feature("amxtile"), kernel_lists("amx_tile"));
  EXPECT_EQ(has_cpu_feature("amxbf16"), kernel_lists("amx_bf16"));
  EXPECT_EQ(has_cpu_feature("amxint8"), kernel_lists("amx_int8"));
}

TEST(CpuFeatures, UnknownNamesAreNotThere) {
  EXPECT_EQ(find_cpu_feature("avx1024"), nullptr);
  EXPECT_EQ(find_cpu_feature(""), nullptr);
  EXPECT_FALSE(has_cpu_feature("avx"));
  EXPECT_NE(find_cpu_feature("avx512vbmi"), nullptr);
}

TEST(CpuFeatures, AreListed) {
  std::string expected;
  for (const CpuFeature& feature : cpu_features())
    if (feature.present) expected += (expected.empty() ? "" : " ") + std::string(feature.name);
  EXPECT_EQ(cpu_features_str(), expected.empty() ? "none" : expected);
}

}  // namespace
}  // namespace kiln::cpu
