// Runs passes: the clock, the dumps, the verifier and the list of disabled passes. Passes know
// nothing of these.
#pragma once

#include <vector>

#include "passes/pass.h"

namespace kiln::passes {

class Runner {
 public:
  Runner(ir::Graph& graph, PassContext& context, const RunOptions& options);

  // Returns whether the pass changed the graph; false for a disabled one.
  bool run(Pass pass);
  std::vector<PassReport> take_reports() { return std::move(reports_); }

 private:
  void dump(std::string_view name) const;

  ir::Graph& graph_;
  PassContext& context_;
  PassControl control_;
  std::vector<PassReport> reports_;
};

// The standard order of the passes, and its first half; pipeline.cpp.
void preparation(Runner& runner);
void standard_pipeline(Runner& runner);

}  // namespace kiln::passes
