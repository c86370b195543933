// --shape arguments: "x=1..8..32,128".
#pragma once

#include <string>
#include <vector>

#include "kiln/kiln.h"

namespace tools {

struct ShapeArgument {
  std::string input;
  std::vector<kiln_dim> dims;  // N, min..max (opt is max) or min..opt..max
};

// UsageError for anything else.
ShapeArgument parse_shape(const std::string& text);

}  // namespace tools
