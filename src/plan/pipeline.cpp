// The standard order of the passes: a contents page. Comments say only why something must come before something else.
#include "plan/pass.h"

namespace kiln::plan {

void run_pipeline(Program& program, const PlanOptions& options) {
  Runner runner(program, options);
}

}  // namespace kiln::plan
