// The text form of graphs: printed for people and golden tests, and parsed back. Grammar:
// docs/ir.md.
#pragma once

#include <string>
#include <string_view>

#include "ir/graph.h"

namespace kiln::ir {

struct PrintOptions {
  bool types = true;
  bool locations = false;
  int64_t max_literal_elements = 16;  // longer constants print as a hash and cannot be parsed back
};

std::string to_text(const Graph& graph, const PrintOptions& options = {});
// CompileError with line and column.
Graph parse_graph(std::string_view text);

}  // namespace kiln::ir
