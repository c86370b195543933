// Programs as text, for people and golden tests.
#pragma once

#include <string>

#include "plan/form/program.h"

namespace kiln::plan {

std::string to_text(const Program& program);

}  // namespace kiln::plan
