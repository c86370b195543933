// Structs of callers that were built with another version of kiln.h. Not public.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <string>

#include "kiln/kiln.h"
#include "support/status.h"

namespace kiln {

// No struct of ours is ever near this: a size that is was not set.
inline constexpr size_t kMostStructBytes = 4096;

// Whether a struct of `given` bytes has nothing in the fields behind the `known` bytes.
inline bool is_zero_behind(const void* data, size_t known, size_t given) {
  const auto* bytes = static_cast<const std::byte*>(data);
  return std::all_of(bytes + std::min(known, given), bytes + given,
                     [](std::byte each) { return each == std::byte{0}; });
}

// The status for fields of a newer version that are set.
inline Status newer_fields(const std::string& what) {
  return Status(StatusCode::Unsupported, what + " has fields set that this version of Kiln, " +
                                             kiln_version() + ", does not know");
}

// The caller's options at our size: those that an older header lacks are zero; those of a newer one
// must be.
template <typename Options>
Result<Options> current_options(const Options* options, const char* name) {
  Options current{};
  if (options == nullptr) return current;
  const size_t given = options->struct_size;
  if (given < sizeof(size_t))
    return Status(StatusCode::InvalidArgument, std::string(name) + ".struct_size is not set");
  if (given > kMostStructBytes)
    return Status(StatusCode::InvalidArgument, std::string(name) + ".struct_size is " +
                                                   std::to_string(given) + ", expected " +
                                                   std::to_string(sizeof(current)));
  if (!is_zero_behind(options, sizeof(current), given)) return newer_fields(name);
  std::memcpy(&current, options, std::min(given, sizeof(current)));
  current.struct_size = sizeof(current);
  return current;
}

}  // namespace kiln
