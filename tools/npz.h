// NumPy's .npz files: zip archives of .npy files.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "npy.h"

namespace tools {

// The arrays by name, in the order of the file, as numpy.savez wrote them. Failure with the path and the reason,
// for compressed entries too.
std::vector<std::pair<std::string, Array>> read_npz(const std::string& path);

}  // namespace tools
