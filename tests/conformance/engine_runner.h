// From a graph to the outputs of a run, by way of engine bytes: what every backend of this
// repository joins the suite with.
#pragma once

#include <string>

#include "conformance/backend.h"

namespace kiln::conformance {

// Compiles for a target and one of its variants ("": all), loads the bytes and opens a session on
// two threads. What goes wrong, now or in a run, is a std::runtime_error or a CompileError.
Runner compile_and_load(ir::Graph graph, const std::string& target, const std::string& variant);

}  // namespace kiln::conformance
