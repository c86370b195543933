// Operators that Kiln does not know and the user has kernels for.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "import/call.h"

namespace kiln::import {

// "mylib::scaled_sine" of "mylib.scaled_sine.default", "mylib::scaled_sine.out_variant" of another overload. Nothing
// for what changes its operands, by its name, and for higher-order operators.
std::optional<std::string> kernel_name(std::string_view target);

// A custom node; its results have the types that the model records. CompileError for arguments and results that a
// kernel cannot have.
std::vector<ir::Value*> import_custom(Call& call, const std::string& kernel);

}  // namespace kiln::import
