// The compile side from end to end: the only place that knows every stage.
#pragma once

#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "backends/backend.h"
#include "import/import.h"
#include "ir/graph.h"

namespace kiln {

struct CompileOptions {
  std::vector<import::DimRange> ranges;
  BackendOptions backend;
  std::vector<std::string> disabled_passes;
  bool verify_passes = false;
  std::string dump_directory;  // empty: no dumps
  std::function<void(std::string_view stage, double fraction)> progress;
};

// Import -> passes -> plan -> backend -> engine bytes. Throws CompileError or InternalError.
std::vector<std::byte> compile(const import::Model& model, const CompileOptions& options);
// The same from a graph; consumes it.
std::vector<std::byte> compile(ir::Graph graph, const CompileOptions& options);
// Straight to a file: the engine is never whole in memory. Temporary file, then rename.
void compile_to_file(const import::Model& model, const CompileOptions& options, const std::string& path);

}  // namespace kiln
