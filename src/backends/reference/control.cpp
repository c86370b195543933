// repeat: the body runs on what it gave before.
#include <algorithm>

#include "backends/reference/tensor.h"

namespace kiln::reference {

std::vector<Literal> evaluate_control(const Call& call) {
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
