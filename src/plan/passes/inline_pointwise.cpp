// Pointwise producers are computed in their pointwise consumers, in concatenations, in epilogues
// and in masks.
//
// Before: straight from lowering. After: what follows a contraction is one pointwise kernel, as
// fuse_epilogues wants it. What reads a contraction and has several consumers stays a kernel of its
// own, to become an epilogue.
#include "plan/passes/inliner.h"
#include "plan/passes/pass.h"

namespace kiln::plan {

bool inline_pointwise(Program& program) { return inline_producers(program, Consumers::Pointwise); }

}  // namespace kiln::plan
