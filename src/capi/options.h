// Structs of callers that were built with another version of kiln.h. Not public.
#pragma once

#include <cstddef>
#include <string>

#include "kiln/kiln.h"
#include "support/status.h"

namespace kiln {

// No struct of ours is ever near this: a size that is was not set.
inline constexpr size_t kMostStructBytes = 4096;

// Whether a struct of `given` bytes has nothing in the fields behind the `known` bytes.
bool is_zero_behind(const void* data, size_t known, size_t given);
// The status for fields of a newer version that are set.
Status newer_fields(const std::string& what);
// Copies options that begin with their size to `current`, which has `known` bytes of zeros.
Status copy_options(const char* name, const void* options, void* current, size_t known);

// The caller's options at our size: those that an older header lacks are zero; those of a newer one
// must be. Null: all are.
template <typename Options>
Result<Options> current_options(const Options* options, const char* name) {
  Options current{};
  if (options != nullptr)
    KILN_RETURN_IF_ERROR(copy_options(name, options, &current, sizeof(current)));
  return current;
}

// Fills in `known` bytes of a struct of the caller's, which begins with its size and keeps that; what it
// has more becomes zero.
Status give_struct(const char* name, const void* full, void* to, size_t known);

}  // namespace kiln
