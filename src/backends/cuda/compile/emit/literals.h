// Constants as CUDA C++ text.
#pragma once

#include <cstdint>
#include <string>

#include "support/dtype.h"

namespace kiln::cuda {

// The number to the last bit, of register_type(dtype): a hexadecimal float, infinity, NaN.
std::string floating_literal(DType dtype, double number);
// Wrapped to the dtype already; bool is 0 or 1.
std::string integer_literal(DType dtype, int64_t number);

}  // namespace kiln::cuda
