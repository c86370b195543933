// Pointwise producers are computed where they are used, in reductions and normalisations too.
//
// Before: contractions have their epilogues, which come first. After: a pointwise kernel is left
// only where its work would be repeated too often.
#include "plan/passes/inliner.h"
#include "plan/passes/pass.h"

namespace kiln::plan {

bool inline_operands(Program& program) { return inline_producers(program, Consumers::All); }

}  // namespace kiln::plan
