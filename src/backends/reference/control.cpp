// repeat: the body runs on what it gave before. custom is refused: its kernel is in another half of Kiln.
#include <algorithm>

#include "backends/reference/tensor.h"
#include "support/error.h"

namespace kiln::reference {

std::vector<Literal> evaluate_control(const Call& call) {
  if (call.node.op == ir::Op::custom)
    throw CompileError(
        "[" + call.node.attr<std::string>("kernel") +
        "] got an operator with a kernel of the user's own, expected Kiln's own: only "
        "engines can call it, the reference interpreter cannot");
  const ir::Graph& body = *call.node.attr<std::shared_ptr<ir::Graph>>("body");
  const size_t carried = call.node.outputs.size();
  bool goes_on = call.inputs[0]->as_int(0) != 0;
  std::vector<Literal> values;
  for (const Literal* input : call.inputs.subspan(1)) values.push_back(*input);
  while (goes_on) {
    std::vector<Literal> results = run_body(body, values, call.size_of);
    goes_on = results[0].as_int(0) != 0;
    std::ranges::move(results.begin() + 1, results.end(), values.begin());
  }
  values.resize(carried);
  return values;
}

}  // namespace kiln::reference
