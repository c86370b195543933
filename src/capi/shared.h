// What the two halves of the C API share: libkiln_runtime implements both, libkiln uses them. Not
// public.
#pragma once

#include <cstddef>
#include <vector>

#include "kiln/kiln.h"

// Made by either library, released by kiln_bytes_destroy.
struct kiln_bytes {
  std::vector<std::byte> data;
};

extern "C" {
// Sets the calling thread's kiln_last_error text. Exported for libkiln alone: no promise is made
// about it.
KILN_API void kiln_private_set_last_error(const char* text);
// The same for a text that is never freed: takes no memory.
KILN_API void kiln_private_set_lasting_error(const char* text);
// Ends the compiles of all threads, and returns when they have; later ones are refused. For
// interpreters that are about to end while threads compile. No promise is made about it.
KILN_API void kiln_private_end_compiles(void);
}
