// How much a kernel has to do, whatever computes it: what rooflines are drawn of.
#pragma once

#include <string>

#include "plan/form/program.h"

namespace kiln::plan {

struct Work {
  // Additions, multiplications and other pointwise operations, one each; a multiply-add is two. Of a sum
  // as it is written: Winograd's algorithm does fewer. A causal attention: of half of the scores.
  ir::Dim operations;
  // Of memory: what is read, each element once (of a buffer that is indexed by data, as many as there
  // are loads), and what is written.
  ir::Dim bytes;
  // What is multiplied, of contractions: "f32", "tf32", "bf16", "u8"; of others what is computed in: "f32".
  std::string precision;
};

Work work_of(const Program& program, const Kernel& kernel);

}  // namespace kiln::plan
