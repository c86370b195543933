// Programs that change tensors in place, as programs that do not.
#pragma once

#include "import/program.h"

namespace kiln::import {

// torch.export keeps `cache[:, i] = x` and `counter += 1` as they were written: operators that change
// memory, which several names may see. Here each becomes an operator with a result of its own:
//
//   v = slice(cache, 1, i, i + 1)            v = slice(cache, 1, i, i + 1)
//   copy_(v, x)                        ->    v1 = copy(v, x)
//                                            cache1 = slice_scatter(cache, v1, 1, i, i + 1)
//   y = relu(cache)                          y = relu(cache1)
//
// What was changed through a view is put back into what it is a view of, and a view that is used
// later is taken again. Inputs and buffers that end changed are results of the program
// ("buffer_mutation", "user_input_mutation"), as ExportedProgram.run_decompositions() has them; this
// is that method's functionalisation for the operators that can be put back. Where one cannot, or
// where a result may or may not be a view, the node keeps a `refusal`, which its import throws.
//
// For whole programs: of a part of one, other parts may see the memory too (import/mutation.h).
void functionalise(Program& program);

}  // namespace kiln::import
