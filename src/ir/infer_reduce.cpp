// Reductions and scans.
#include <algorithm>

#include "ir/infer.h"
#include "ir/op_table.h"

namespace kiln::ir {

Type infer_reduce(const Call& call) {
  Type result = call.type(0);
  if (op_info(call.op()).kind == OpKind::Scan) {
    call.expect_axis(call.integer("axis"), result.rank());
    return result;
  }
  const bool is_arg = call.op() == Op::argmax || call.op() == Op::argmin;
  const std::vector<int64_t> axes =
      is_arg ? std::vector<int64_t>{call.integer("axis")} : call.integers("axes");
  call.expect_axes(axes, result.rank(), true);
  const bool keepdim = call.attr<bool>("keepdim");
  for (auto axis = axes.rbegin(); axis != axes.rend(); ++axis) {
    if (keepdim) {
      result.shape[*axis] = 1;
    } else {
      result.shape.erase(result.shape.begin() + *axis);
    }
  }
  result.dtype = call.result_dtype();
  return result;
}

}  // namespace kiln::ir
