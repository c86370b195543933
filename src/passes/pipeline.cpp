// The standard order of the passes: a contents page. Comments say only why something must come
// before something else.
#include "passes/runner.h"

namespace kiln::passes {
namespace {

// Each of these makes work for the others, but two rounds reach nearly everything.
void clean_up(Runner& runner) {
  for (int round = 0; round < 2; ++round) {
    bool changed = runner.run(canonicalise);
    changed |= runner.run(simplify_shapes);
    changed |= runner.run(fold_indices);  // before fold_constants, which would make tables of them
    changed |= runner.run(fold_constants);
    changed |= runner.run(eliminate_common_subexpressions);
    changed |= runner.run(eliminate_dead_code);
    if (!changed) return;
  }
}

}  // namespace

void preparation(Runner& runner) {
  clean_up(runner);  // patterns are written for canonical graphs
  runner.run(fold_batch_norm);
  runner.run(recognise_patterns);
}

void standard_pipeline(Runner& runner) {
  preparation(runner);
  runner.run(quantise_layers);   // after fold_batch_norm, which changes weights
  runner.run(enlarge_last);      // after quantise_layers, whose layers stay whole
  runner.run(assign_precision);  // before assign_layouts, which permutes the filters that it makes
  runner.run(assign_layouts);    // after fold_batch_norm, which expects channels in axis 1
  clean_up(runner);
}

}  // namespace kiln::passes
