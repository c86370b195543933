// Where in the arguments of the model's forward each input is found.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "import/json.h"

namespace kiln::import {

// One step of a path: into a parameter or a dictionary, or into a tuple or a list.
std::string name_key(const std::string& name);
std::string position_key(const std::string& number);

// Name of the input by its path. `module_calls` is the schema's module_call_graph; `inputs` has
// the names of the model's inputs in their order, empty for what is no tensor. What lies in
// structures other than tuples, lists and dictionaries is left out.
std::map<std::string, std::string, std::less<>> read_input_paths(
    JsonElement module_calls, const std::vector<std::string>& inputs);

}  // namespace kiln::import
