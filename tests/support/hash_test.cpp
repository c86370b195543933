#include "support/hash.h"

#include <gtest/gtest.h>

#include <vector>

namespace kiln {
namespace {

std::span<const std::byte> bytes_of(const std::string& text) {
  return std::as_bytes(std::span(text));
}

// Values of the reference implementation: files depend on them.
TEST(Hash, KnownValues) {
  EXPECT_EQ(hash_str(hash128({})), "99aa06d3014798d86001c324468d497f");
  EXPECT_NE(hash_str(hash128(bytes_of("kiln"))), hash_str(hash128(bytes_of("kilm"))));
}

TEST(Hasher, IsTheHashOfTheConcatenation) {
  const std::string text(10000, 'x');
  Hasher hasher;
  hasher.update(bytes_of(text).first(3333));
  hasher.update({});
  hasher.update(bytes_of(text).subspan(3333));
  EXPECT_EQ(hasher.finish(), hash128(bytes_of(text)));
}

TEST(Hasher, Zeros) {
  const std::vector<std::byte> zeros(9001);
  Hasher hasher;
  hasher.update_zeros(9001);
  EXPECT_EQ(hasher.finish(), hash128(zeros));
}

}  // namespace
}  // namespace kiln
