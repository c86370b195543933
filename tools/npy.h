// NumPy's .npy files: one array each.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "kiln/kiln.hpp"

namespace tools {

struct Array {
  kiln_dtype dtype = KILN_F32;
  std::vector<int64_t> shape;
  std::vector<int64_t> strides;  // in elements; empty: contiguous, row-major
  std::vector<std::byte> data;
};

// Bytes of one element.
size_t element_size(kiln_dtype dtype);
// "float32"; NumPy's name, "bfloat16" and "float8_e4m3fn".
const char* dtype_name(kiln_dtype dtype);
// Elements of a shape; Failure when they do not fit 63 bits.
int64_t element_count(const std::vector<int64_t>& shape);

// A view of the array; valid while the array is.
kiln::Tensor as_tensor(const Array& array);

// Failure where it cannot be read.
std::string read_file(const std::string& path);

// All throw Failure with the path and the reason. NumPy has neither bfloat16 nor float8: such arrays
// are written as float32.
Array read_npy(const std::string& path);
Array parse_npy(std::string_view bytes, const std::string& path);
void write_npy(const std::string& path, const Array& array);

}  // namespace tools
