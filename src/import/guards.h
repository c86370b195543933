// torch.export's guards: what the model's author, or an operator, relied on of the sizes of inputs.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "import/program.h"

namespace kiln::import {

// A guard such as "L['x'][0].size()[1] % 2 == 0".
struct Guard {
  std::string condition;  // for parse_condition
  std::string text;       // for people: "x_0.size(1) % 2 == 0"
};

// Nothing for a guard of something else than sizes of tensors, or in another language than
// arithmetic on integers.
std::optional<Guard> read_guard(std::string_view text, const Program& program);

}  // namespace kiln::import
