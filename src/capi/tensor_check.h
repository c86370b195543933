// What makes a caller's tensor one that can be looked at. Not public.
#pragma once

#include <cstddef>

#include "kiln/kiln.h"
#include "support/status.h"

namespace kiln {

// Whether check_tensor passes, as it nearly always does; false for sizes of other headers.
inline bool is_plain(const kiln_tensor& tensor) {
  return tensor.struct_size == sizeof(kiln_tensor) && tensor.dtype >= KILN_F32 &&
         tensor.dtype <= KILN_F8E4M3 && tensor.rank >= 0 && tensor.rank <= KILN_MAX_RANK &&
         (tensor.shape != nullptr || tensor.rank == 0);
}

// Its size, which is that of its array, its dtype and its shape. Messages begin with "input 3: " for
// role "input".
Status check_tensor(const char* role, size_t index, const kiln_tensor& tensor, size_t struct_size);

}  // namespace kiln
