// The small ones: log levels, aligned buffers.
#include <gtest/gtest.h>

#include <fstream>
#include <string>

#include "support/aligned_buffer.h"
#include "support/log.h"

namespace kiln {
namespace {

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
