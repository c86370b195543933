// Passes over ir::Graph: the table, the runner and what a pass may use.
#pragma once

#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "ir/graph.h"
#include "support/pass_control.h"

namespace kiln::passes {

struct Quantisation;  // passes/quantisation.h

struct PassContext {
  // Evaluates a node whose operands are all constants; null: constants are not folded. Given by the
  // driver, so that passes need no backend.
  std::function<std::vector<ir::Literal>(const ir::Node&, std::span<const ir::Literal* const>)>
      evaluate;
  // Results of 16-bit ops stay rounded as the graph says: no pattern may take several of them
  // together.
  bool emulate_precision_casts = false;
  const Quantisation* quantisation = nullptr;            // null: nothing is quantised
  std::function<void(const std::string& text)> warning;  // what the user should know; may be null
};

// Returns whether it changed the graph. One .cpp per pass; declared by passes.def.
using Pass = bool (*)(ir::Graph& graph, PassContext& context);

#define KILN_PASS(name, summary) bool name(ir::Graph& graph, PassContext& context);
#include "passes/passes.def"
#undef KILN_PASS

struct PassInfo {
  std::string_view name, summary;
  Pass run;
};
std::span<const PassInfo> all_passes();
const PassInfo* find_pass(std::string_view name);  // null if there is none

using RunOptions = PassOptions;  // dumps are NNN_name.ir
struct PassReport {
  std::string_view name;
  double milliseconds = 0;
  bool changed = false;
};

// The first half of the pipeline: what quantise_layers expects to have run.
std::vector<PassReport> run_preparation(ir::Graph& graph, PassContext& context,
                                        const RunOptions& options);
// The standard pipeline: passes/pipeline.cpp.
std::vector<PassReport> run_pipeline(ir::Graph& graph, PassContext& context,
                                     const RunOptions& options);

}  // namespace kiln::passes
