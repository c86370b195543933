// NumPy's .npy files, as far as the tests write them: little-endian, row-major.
#pragma once

#include <string>

#include "ir/type.h"

namespace kiln::test {

// NumPy has no bfloat16: its bits travel as uint16, read as BF16.
ir::Literal read_npy(const std::string& path);
void write_npy(const std::string& path, const ir::Literal& literal);

}  // namespace kiln::test
