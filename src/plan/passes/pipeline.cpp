// The standard order of the passes: a contents page. Comments say only why something must come
// before something else.
#include "plan/passes/pass.h"
#include "plan/passes/program_parts.h"

namespace kiln::plan {

namespace {

void fuse(Runner& runner) {
  runner.run(remove_dead);       // what products of integers do not read
  runner.run(inline_pointwise);  // one kernel of pointwise work after each contraction
  runner.run(recognise_causal);
  runner.run(fuse_epilogues);     // before reductions could take what belongs into an epilogue
  runner.run(pair_matmuls);       // before its result could be merged with others
  runner.run(pool_convolutions);  // before other nests could become part of the pooling's
  runner.run(inline_operands);
  runner.run(fuse_loop_nests);
  runner.run(fuse_stores);  // of other outer loops
  runner.run(split_concats);
  runner.run(fold_output_views);
  runner.run(join_sums);      // after results found their places: those of a graph may lie anywhere
  runner.run(merge_matmuls);  // after results found their places: merged ones cannot move
  runner.run(transpose_products);
  runner.run(fold_scales);  // of whole epilogues
  runner.run(tabulate_bytes);
  runner.run(choose_winograd);
  runner.run(order_loops);
  runner.run(split_reductions);  // after all fusions, which would join what it takes apart
  runner.run(remove_dead);
}

// What a part makes is there when its sizes are read: nothing moves from one to another.
void fuse_parts(Program& program, const PlanOptions& options) {
  ProgramParts split(program);
  size_t dumps = 0;
  for (Program& part : split.parts()) {
    Runner runner(part, options, dumps);
    fuse(runner);
    if (!program.repeats.empty()) {
      runner.require("update_inputs", update_inputs);
      runner.run(reuse_buffers);  // here: what a repeat reads it reads again
    }
    dumps = runner.dumps();
  }
  split.join();
}

}  // namespace

void run_pipeline(Program& program, const PlanOptions& options) {
  const bool has_parts = !program.data_sizes.empty() || !program.repeats.empty();
  if (has_parts) fuse_parts(program, options);
  Runner runner(program, options);
  if (has_parts)
    runner.run(remove_dead);
  else
    fuse(runner);
  runner.require("update_inputs", update_inputs);
  if (program.repeats.empty()) runner.run(reuse_buffers);  // kernels may not move any more, but:
  if (!has_parts) runner.run(join_nests);  // neighbours, once it is known what lies where
}

}  // namespace kiln::plan
