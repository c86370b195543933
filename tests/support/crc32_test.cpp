#include "support/crc32.h"

#include <gtest/gtest.h>

#include <string>

namespace kiln {
namespace {

uint32_t crc_of(const std::string& text) { return crc32(std::as_bytes(std::span(text))); }

TEST(Crc32, IsThatOfZip) {
  EXPECT_EQ(crc_of(""), 0u);
  EXPECT_EQ(crc_of("123456789"), 0xcbf43926u);
  EXPECT_EQ(crc_of("The quick brown fox jumps over the lazy dog"), 0x414fa339u);
  EXPECT_EQ(crc_of(std::string(1 << 20, '\0')), 0xa738ea1cu);
}

}  // namespace
}  // namespace kiln
