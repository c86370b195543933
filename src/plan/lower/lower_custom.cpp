// custom: a call of a kernel of the user's own on whole buffers. What is a true view of one is copied before.
#include "plan/lower/lowering.h"
#include "support/error.h"

namespace kiln::plan {

void lower_custom(Lowering& lowering, const ir::Node& node) {
  Custom custom;
  custom.kernel = node.attr<std::string>("kernel");
  custom.arguments = node.attr<std::string>("arguments");
  if (!lowering.traits().calls)
    throw CompileError("[" + custom.kernel +
                       "] got an operator with a kernel of the user's own, for a target whose "
                       "programs call none, expected the CPU: custom kernels run on CPUs");
  for (const ir::Value* input : node.inputs)
    custom.inputs.push_back({lowering.dense(input), input->type.shape});
  for (const ir::Value* output : node.outputs)
    custom.outputs.push_back({lowering.define(output), output->type.shape});
  lowering.emit(node, std::move(custom));
}

}  // namespace kiln::plan
