// A small engine for a GPU, made without the compiler. Its code is no code: the fake driver looks at none.
#pragma once

#include <cstddef>
#include <vector>

namespace kiln::test {

// Of x: f32[4] makes a temporary of 1 MiB, and of that and a constant y: f32[4]; for a generation, such as
// "sm_90".
std::vector<std::byte> make_gpu_engine(const char* generation);

}  // namespace kiln::test
