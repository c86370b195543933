// What the functions of libkiln_runtime share: statuses become results, and texts of the last error.
// Not public.
#pragma once

#include <new>
#include <stdexcept>
#include <string>

#include "capi/shared.h"
#include "kiln/kiln.h"
#include "support/status.h"

namespace kiln {

// Sets the text of the last error.
[[gnu::cold]] kiln_status fail(const Status& status);
inline kiln_status finish(const Status& status) { return status.ok() ? KILN_OK : fail(status); }
[[gnu::cold]] kiln_status out_of_memory() noexcept;

[[gnu::cold]] Status null_argument(const char* name);

#define KILN_REQUIRE(pointer) \
  if ((pointer) == nullptr) return ::kiln::null_argument(#pointer)

// Runs the body of an API function. Nothing below throws but the standard library, when memory is
// short.
template <typename Body>
kiln_status guarded(const Body& body) {
  try {
    return finish(body());
  } catch (const std::bad_alloc&) {
    return out_of_memory();
  } catch (const std::length_error&) {  // a container that is larger than any memory
    return out_of_memory();
  }
}

kiln_bytes* to_bytes(const std::string& text);

}  // namespace kiln
