// Indices that have another rank than what they are for.
#pragma once

#include <string>

#include "import/ops/common.h"

namespace kiln::import {

// PyTorch takes such an index if it is empty, and nothing else. `rank`: of what the index is for.
inline void expect_empty(const Call& call, const Value* index, size_t rank) {
  call.expect(index->type.elements().is_constant(0),
              "an index of rank " + std::to_string(index->type.rank()) + " that may have elements",
              "rank " + std::to_string(rank));
}

}  // namespace kiln::import
