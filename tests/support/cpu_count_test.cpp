// Quotas of control groups, in folders that look like those of Linux.
#include "support/cpu_count.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <limits>
#include <map>

namespace kiln {
namespace {

namespace fs = std::filesystem;

class CpuQuota : public ::testing::Test {
 protected:
  void SetUp() override {
    root_ = fs::temp_directory_path() / ("kiln_cpu_count_test_" + std::to_string(getpid()));
  }
  void TearDown() override { fs::remove_all(root_); }

  void write(const std::string& path, const std::string& text) const {
    fs::create_directories((root_ / path).parent_path());
    std::ofstream(root_ / path) << text;
  }
  std::optional<int> quota() const { return cpu_quota(root_.string()); }

  fs::path root_;
};

TEST_F(CpuQuota, NothingToRead) { EXPECT_EQ(quota(), std::nullopt); }

TEST_F(CpuQuota, Unified) {
  write("proc/self/cgroup", "0::/\n");
  EXPECT_EQ(quota(), std::nullopt);
  for (const auto& [text, expected] : std::map<std::string, std::optional<int>>{
           {"max 100000\n", std::nullopt},
           {"200000 100000\n", 2},
           {"200001 100000\n", 3},
           {"1000 100000\n", 1},
           {"50000 25000\n", 2},
           {"9000000000000000000 1\n", std::numeric_limits<int>::max()},
           {"0 100000\n", std::nullopt},
           {"200000 0\n", std::nullopt},
           {"-200000 100000\n", std::nullopt},
           {"200000\n", std::nullopt},
           {"what\n", std::nullopt},
           {"", std::nullopt},
       }) {
    write("sys/fs/cgroup/cpu.max", text);
    EXPECT_EQ(quota(), expected) << text;
  }
}

TEST_F(CpuQuota, TheSmallestOfThoseAround) {
  write("proc/self/cgroup", "0::/pod/one/inner\n");
  write("sys/fs/cgroup/pod/cpu.max", "300000 100000\n");
  write("sys/fs/cgroup/pod/one/cpu.max", "500000 100000\n");
  write("sys/fs/cgroup/pod/one/inner/cpu.max", "max 100000\n");
  write("sys/fs/cgroup/pod/another/cpu.max", "100000 100000\n");
  EXPECT_EQ(quota(), 3);
}

TEST_F(CpuQuota, PathsOfTheHostAreNotInAContainer) {
  write("sys/fs/cgroup/cpu.max", "400000 100000\n");
  for (const char* path : {"/docker/0a1b", "/../../system.slice", "/", ""}) {
    write("proc/self/cgroup", std::string("0::") + path + "\n");
    EXPECT_EQ(quota(), 4) << path;
  }
}

TEST_F(CpuQuota, VersionOne) {
  write("proc/self/cgroup",
        "9:cpuset:/a\n5:cpu,cpuacct:/a\nnonsense\n:\n1:name=systemd:/a\n0::/a\n");
  const std::string folder = "sys/fs/cgroup/cpu,cpuacct/a/";
  write("sys/fs/cgroup/cpuset/a/cpu.cfs_quota_us", "100000\n");
  write(folder + "cpu.cfs_quota_us", "-1\n");
  write(folder + "cpu.cfs_period_us", "100000\n");
  EXPECT_EQ(quota(), std::nullopt);
  write(folder + "cpu.cfs_quota_us", "250000\n");
  EXPECT_EQ(quota(), 3);
  fs::remove(root_ / folder / "cpu.cfs_period_us");
  EXPECT_EQ(quota(), std::nullopt);
}

TEST(AvailableCpus, AreWithinTheQuota) {
  EXPECT_GE(available_cpus(), 1);
  if (const std::optional<int> quota = cpu_quota()) {
    EXPECT_LE(available_cpus(), *quota);
  }
}

}  // namespace
}  // namespace kiln
