// Walking over kernels: their expressions and operands.
#pragma once

#include <functional>
#include <vector>

#include "plan/form/program.h"

namespace kiln::plan {

const Expr& value_of(const Stage& stage);
Expr& value_of(Stage& stage);
const std::vector<Loop>& loops_of(const Stage& stage);
std::vector<Loop>& loops_of(Stage& stage);

// Every expression of a kernel: stage values, epilogue, keep and bias.
void for_each_expr(const Kernel& kernel, const std::function<void(const Expr&)>& visitor);
void transform_exprs(Kernel& kernel, const std::function<Expr(const Expr&)>& transform);

// Every buffer id of a kernel outside of its expressions, to be rewritten.
std::vector<BufferId*> buffer_slots(Kernel& kernel);

// Gives every buffer of a kernel, in its expressions too, the id that `ids` has for it.
void renumber_buffers(Kernel& kernel, const std::vector<BufferId>& ids);

// Strided operands of a contraction.
std::vector<const View*> input_views(const Kernel& kernel);
// Buffers read whole or through views, not through Loads.
std::vector<BufferId> operands(const Kernel& kernel);
// Whether a buffer of one list lies in the memory of one of the other, as it does where kernels work in place.
bool share_memory(const Program& program, const std::vector<BufferId>& some,
                  const std::vector<BufferId>& others);
// Buffers that an expression loads from, each once.
std::vector<BufferId> loads(const Expr& expr);

}  // namespace kiln::plan
