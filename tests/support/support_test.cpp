// The small ones: CPU features, log levels, aligned buffers.
#include <gtest/gtest.h>

#include <fstream>
#include <string>

#include "support/aligned_buffer.h"
#include "support/cpu_features.h"
#include "support/log.h"

namespace kiln {
namespace {

// What the kernel says of this machine.
bool kernel_lists(const std::string& flag) {
  std::ifstream file("/proc/cpuinfo");
  std::string line;
  while (std::getline(file, line))
    if (line.starts_with("flags")) return (line + " ").find(" " + flag + " ") != std::string::npos;
  return false;
}

TEST(CpuFeatures, AgreeWithTheKernel) {
  const uint64_t features = detect_cpu_features();
  EXPECT_EQ((features & kCpuAvx2Fma) != 0, kernel_lists("avx2") && kernel_lists("fma"));
  EXPECT_EQ((features & kCpuAvx512) != 0, kernel_lists("avx512f") && kernel_lists("avx512vl"));
  EXPECT_EQ((features & kCpuAvx512Bf16) != 0, kernel_lists("avx512_bf16"));
  EXPECT_EQ((features & kCpuAvx512Vnni) != 0, kernel_lists("avx512_vnni"));
  EXPECT_EQ((features & kCpuAvxVnni) != 0, kernel_lists("avx_vnni"));
  EXPECT_EQ((features & kCpuAvx512Vbmi) != 0, kernel_lists("avx512vbmi"));
}

TEST(CpuFeatures, HaveNames) {
  EXPECT_EQ(cpu_features_str(0), "none");
  EXPECT_EQ(cpu_features_str(kCpuAvx2Fma | kCpuAvx512Vnni), "avx2 avx512vnni");
  EXPECT_EQ(cpu_features_str(uint64_t{1} << 63), "unknown63");
}

TEST(Log, LevelsHaveNames) {
  EXPECT_EQ(log_level_from_name("debug"), LogLevel::Debug);
  EXPECT_EQ(log_level_from_name("warn"), LogLevel::Warn);
  EXPECT_EQ(log_level_from_name("loud"), LogLevel::Off);
}

TEST(AlignedBuffer, IsAligned) {
  for (const uint64_t size : {1, 63, 64, 100000, 5 << 20}) {
    const Result<AlignedBuffer> buffer = AlignedBuffer::allocate(size);
    ASSERT_TRUE(buffer.ok());
    EXPECT_EQ(reinterpret_cast<uintptr_t>(buffer->data()) % kTensorAlignment, 0u);
    EXPECT_EQ(buffer->size(), size);
    buffer->data()[size - 1] = std::byte{1};
  }
}

TEST(AlignedBuffer, RefusesWhatNoMachineHas) {
  const Result<AlignedBuffer> buffer = AlignedBuffer::allocate(~uint64_t{0});
  ASSERT_FALSE(buffer.ok());
  EXPECT_EQ(buffer.status().code(), StatusCode::OutOfMemory);
}

TEST(AlignedBuffer, MayBeEmpty) {
  const Result<AlignedBuffer> buffer = AlignedBuffer::allocate(0);
  ASSERT_TRUE(buffer.ok());
  EXPECT_EQ(buffer->data(), nullptr);
}

}  // namespace
}  // namespace kiln
