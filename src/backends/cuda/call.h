// What the two halves of the CUDA backend agree on beyond the engine file: its code and its steps.
//
// A program's code is one cubin after another, or one text of PTX that ends with a zero byte; a
// kernel's entry is where its own begins, and its function is the name in it. A kernel has these
// parameters, in this order:
//   a pointer for each of the step's buffers
//   a 64-bit integer for each of its params
//   unsigned char* scratch, if the step has any
//   unsigned long long* failed, if the step has checks: a check that fails sets its bit
//   const __grid_constant__ CUtensorMap for each of its tensor maps
#pragma once

#include <string_view>

namespace kiln::cuda {

// The target's name in engine files.
inline constexpr std::string_view kTarget = "cuda";

// Constants lie at multiples of this in the memory of a GPU, as temporaries do: any vector load and
// any tensor map can begin there.
inline constexpr unsigned kConstantAlignment = 256;

// "sm_90": code that runs on GPUs of that generation, and on later ones of the same major number.
// The names of the features that a program needs begin with this.
inline constexpr std::string_view kFeaturePrefix = "sm_";

// "compute_90": PTX, which the driver compiles for the GPU of any later generation when it is loaded.
inline constexpr std::string_view kPtxFeaturePrefix = "compute_";

}  // namespace kiln::cuda
