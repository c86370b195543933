// The compile side from end to end: the only place that knows every stage.
#pragma once

#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "backends/backend.h"
#include "import/import.h"
#include "ir/graph.h"
#include "support/error.h"
#include "support/status.h"

namespace kiln {

// A CompileError that knows its status: an engine that could not be written, an operator that is
// not supported.
class StatusError : public CompileError {
 public:
  explicit StatusError(const Status& status)
      : CompileError(status.message()), code_(status.code()) {}
  StatusCode code() const { return code_; }

 private:
  StatusCode code_;
};

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
void compile_to_file(const import::Model& model, const CompileOptions& options,
                     const std::string& path);

}  // namespace kiln
