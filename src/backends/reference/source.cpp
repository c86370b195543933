// Ops without operands.
#include "backends/reference/array.h"

namespace kiln::reference {

Array evaluate_source(const Call& call) {
  using ir::Op;
  if (call.node.op == Op::constant) return Array::from(call.node.attr<ir::Literal>("value"));
  Array result = call.result();
  for (int64_t i = 0; i < result.elements(); ++i) {
    if (call.node.op == Op::full) {
      result.set(i, call.node.attr<double>("value"));
    } else if (call.node.op == Op::iota) {
      result.set_int(i, call.size(call.node.attr<ir::Dim>("start")) + i * call.integer("step"));
    } else {
      result.set_int(i, call.size(call.node.attr<ir::Dim>("value")));
    }
  }
  return result;
}

}  // namespace kiln::reference
