// XXH3-128: tells damaged files from sound ones. It is not a signature: it does not protect against a
// forger.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>

namespace kiln {

// In canonical (big-endian) byte order.
using Hash128 = std::array<uint8_t, 16>;

Hash128 hash128(std::span<const std::byte> bytes);
// 32 lower-case hexadecimal digits.
std::string hash_str(const Hash128& hash);

// The hash of a concatenation, piece by piece.
class Hasher {
 public:
  Hasher();
  Hasher(Hasher&&) noexcept;
  ~Hasher();

  void update(std::span<const std::byte> bytes);
  void update_zeros(uint64_t count);
  Hash128 finish() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace kiln
