#include "support/hash.h"

#include <xxhash.h>

#include <algorithm>
#include <cstring>

namespace kiln {
namespace {

Hash128 canonical(XXH128_hash_t hash) {
  XXH128_canonical_t bytes;
  XXH128_canonicalFromHash(&bytes, hash);
  Hash128 result;
  std::memcpy(result.data(), bytes.digest, result.size());
  return result;
}

}  // namespace

struct Hasher::State {
  XXH3_state_t xxh;
};

Hash128 hash128(std::span<const std::byte> bytes) {
  return canonical(XXH3_128bits(bytes.data(), bytes.size()));
}

std::string hash_str(const Hash128& hash) {
  constexpr char kDigits[] = "0123456789abcdef";
  std::string text;
  for (const uint8_t byte : hash) {
    text += kDigits[byte >> 4];
    text += kDigits[byte & 15];
  }
  return text;
}

Hasher::Hasher() : state_(std::make_unique<State>()) { XXH3_128bits_reset(&state_->xxh); }
Hasher::Hasher(Hasher&&) noexcept = default;
Hasher::~Hasher() = default;

void Hasher::update(std::span<const std::byte> bytes) {
  XXH3_128bits_update(&state_->xxh, bytes.data(), bytes.size());
}

void Hasher::update_zeros(uint64_t count) {
  static constexpr std::array<std::byte, 4096> kZeros{};
  while (count > 0) {
    const uint64_t size = std::min<uint64_t>(count, kZeros.size());
    update(std::span(kZeros).first(size));
    count -= size;
  }
}

Hash128 Hasher::finish() const { return canonical(XXH3_128bits_digest(&state_->xxh)); }

}  // namespace kiln
