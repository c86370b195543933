// Tells one build of the compiler from another of the same version.
#pragma once

#include <string>

namespace kiln {

// The hash of the binary that this function is in: the library, or a program that it is linked
// into. Read once per process.
const std::string& build_hash();

}  // namespace kiln
