// constant, full, iota, dim_value, data_size.
#include "backends/reference/tensor.h"

namespace kiln::reference {

Literal evaluate_source(const Call& call) {
  if (call.node.op == ir::Op::constant) return call.node.attr<Literal>("value");
  if (call.node.op == ir::Op::data_size) return *call.inputs[0];
  const DType dtype = call.node.attr<DType>("dtype");
  if (call.node.op == ir::Op::full) {
    Sizes shape = call.dims("shape");
    return store(std::vector<double>(product(shape), call.real("value")), dtype, shape);
  }
  if (call.node.op == ir::Op::dim_value)
    return store(std::vector<int64_t>{call.dim("value")}, dtype, {});
  const int64_t start = call.dim("start"), step = call.integer("step");
  std::vector<int64_t> values(call.dim("size"));
  for (size_t i = 0; i < values.size(); ++i) values[i] = start + static_cast<int64_t>(i) * step;
  return store(values, dtype, {static_cast<int64_t>(values.size())});
}

}  // namespace kiln::reference
