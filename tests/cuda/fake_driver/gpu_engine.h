// A small engine for a GPU, made without the compiler. Its code is no code: the fake driver looks at none.
#pragma once

#include <cstddef>
#include <initializer_list>
#include <vector>

namespace kiln::test {

// Of x: f32[4] makes a temporary of 1 MiB, and of that and a constant y: f32[4]; for a generation, such as
// "sm_90".
std::vector<std::byte> make_gpu_engine(const char* generation);

// The same with a program for each of these; all bytes of the code of program i are i + 1, but for a zero at its end
// if it `ends`.
std::vector<std::byte> make_gpu_engine(std::initializer_list<const char*> generations, bool ends);

// Of x: f32[4] makes y: f32[4] in steps with weights of their own, `weight_bytes` each: those of step i hold
// i + 1 in every byte. The last step uses those of the first one too. A step's operands are what it reads, its
// weights, those of the first step if it is the last, and what it writes.
std::vector<std::byte> make_weights_engine(size_t num_steps, size_t weight_bytes);

}  // namespace kiln::test
