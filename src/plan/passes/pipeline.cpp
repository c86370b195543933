// The standard order of the passes: a contents page. Comments say only why something must come
// before something else.
#include "plan/passes/pass.h"

namespace kiln::plan {

void run_pipeline(Program& program, const PlanOptions& options) {
  Runner runner(program, options);
  runner.run(remove_dead);       // what products of integers do not read
  runner.run(inline_pointwise);  // one kernel of pointwise work after each contraction
  runner.run(recognise_causal);
  runner.run(fuse_epilogues);  // before reductions could take what belongs into an epilogue
  runner.run(pair_matmuls);    // before its result could be merged with others
  runner.run(inline_operands);
  runner.run(fuse_loop_nests);
  runner.run(split_concats);
  runner.run(fold_output_views);
  runner.run(merge_matmuls);  // after results found their places: merged ones cannot move
  runner.run(choose_winograd);
  runner.run(order_loops);
  runner.run(split_reductions);  // after all fusions, which would join what it takes apart
  runner.run(remove_dead);
  runner.require("update_inputs", update_inputs);
  runner.run(reuse_buffers);  // last: kernels may not move any more
}

}  // namespace kiln::plan
