#include "support/crc32.h"

#include <array>
#include <cstring>

namespace kiln {
namespace {

constexpr uint32_t kPolynomial = 0xedb88320;
constexpr size_t kStride = 8;

// tables[k][b]: what the byte b does to the sum when k bytes follow it.
using Tables = std::array<std::array<uint32_t, 256>, kStride>;

constexpr Tables make_tables() {
  Tables tables{};
  for (uint32_t b = 0; b < 256; ++b) {
    uint32_t sum = b;
    for (int bit = 0; bit < 8; ++bit) sum = sum >> 1 ^ (sum & 1 ? kPolynomial : 0);
    tables[0][b] = sum;
  }
  for (size_t k = 1; k < kStride; ++k)
    for (size_t b = 0; b < 256; ++b)
      tables[k][b] = tables[k - 1][b] >> 8 ^ tables[0][tables[k - 1][b] & 0xff];
  return tables;
}

constexpr Tables kTables = make_tables();

}  // namespace

uint32_t crc32(std::span<const std::byte> bytes) {
  uint32_t sum = 0xffffffff;
  for (; bytes.size() >= kStride; bytes = bytes.subspan(kStride)) {
    uint64_t next = 0;
    std::memcpy(&next, bytes.data(), kStride);
    next ^= sum;
    sum = 0;
    for (size_t k = 0; k < kStride; ++k) sum ^= kTables[kStride - 1 - k][next >> 8 * k & 0xff];
  }
  for (const std::byte b : bytes)
    sum = sum >> 8 ^ kTables[0][(sum ^ static_cast<uint8_t>(b)) & 0xff];
  return ~sum;
}

}  // namespace kiln
