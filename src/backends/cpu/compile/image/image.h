// The code image of one CPU level: many object files made one block of position-independent bytes.
//
// The image imports nothing and has no relocations left: it is mapped read-execute as it is. Text
// and read-only data of each object are placed one after the other; the only relocations that may
// occur are relative to the place they are at, and are resolved here. Everything else that an
// object file can contain (undefined symbols, writable data, thread-local storage) is refused.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <vector>

namespace kiln::cpu {

// A function of an object.
struct Function {
  std::string name;
  uint64_t offset = 0;       // in the flat code
  uint64_t stack_bytes = 0;  // of its frame, pushes of registers excluded; 0 if not recorded
};

struct FlatObject {
  std::vector<std::byte> bytes;
  std::vector<Function> functions;  // by name
};

// InternalError that lists what is refused.
FlatObject flatten(std::span<const std::byte> object);

}  // namespace kiln::cpu
