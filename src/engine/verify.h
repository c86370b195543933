// Looks at every byte of an engine file, and says what is damaged and where.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace kiln::engine {

struct Damage {
  std::string where;              // "header", "interface", "code cpu:x86-64-v3", "weights", "gap"
  uint64_t offset = 0, size = 0;  // the part of the file that it is somewhere in
  std::string what;               // one sentence
};

// Nothing for a sound engine. Hashes cover the header, the section table and every section; what
// lies between them must be zeros. Damaged weights are told apart by constant, where the file has
// their hashes. A changed bit is always found (hashes of 128 bits); a forger's work is not.
std::vector<Damage> verify(std::span<const std::byte> bytes);

}  // namespace kiln::engine
