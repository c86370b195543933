// Upper limits that the compiler and the runtime share.
#pragma once

#include <cstddef>

namespace kiln {

// Dimensions of a tensor that enters or leaves an engine. As KILN_MAX_RANK in include/kiln/kiln.h.
inline constexpr size_t kMaxRank = 16;

}  // namespace kiln
