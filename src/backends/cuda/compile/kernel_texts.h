// The text of kernels that lies in src/backends/cuda/kernels, embedded by the build.
#pragma once

#include <string_view>

namespace kiln::cuda {

// Of a file by its name: "math.cuh". InternalError for one that there is not.
std::string_view kernel_text(std::string_view file);

}  // namespace kiln::cuda
