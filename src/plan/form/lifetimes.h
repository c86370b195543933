// When memory is in use.
#pragma once

#include <vector>

#include "plan/form/program.h"

namespace kiln::plan {

// First and last kernel that touches each temporary (aliases count for their root); {-1, -1} for
// other buffers.
struct Lifetime {
  int32_t first = -1, last = -1;
};
std::vector<Lifetime> lifetimes(const Program& program);

}  // namespace kiln::plan
