// The implementation of import::Model: the decoded program and its tensors by name.
#pragma once

#include <map>
#include <string>

#include "import/import.h"
#include "import/program.h"

namespace kiln::import {

struct LoadedModel final : Model {
  Program program;
  // Parameters, buffers and constants, by their names in the state dict.
  std::map<std::string, ir::Literal, std::less<>> tensors;
};

// Every Model is one: open_file and open_memory make no other.
const LoadedModel& loaded(const Model& model);

}  // namespace kiln::import
