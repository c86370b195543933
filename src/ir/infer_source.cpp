// constant, full, iota, dim_value.
#include "ir/infer.h"

namespace kiln::ir {

Type infer_source(const Call& call) {
  if (call.op() == Op::constant) {
    const Literal& literal = call.attr<Literal>("value");
    const size_t bytes = static_cast<size_t>(literal.elements()) * dtype_size(literal.dtype);
    call.expect(literal.bytes.size() == bytes, std::to_string(literal.bytes.size()) + " bytes",
                std::to_string(bytes));
    return literal.type();
  }
  const DType dtype = call.result_dtype();
  if (call.op() == Op::full) return {dtype, call.dims("shape")};
  if (call.op() == Op::iota) return {dtype, {call.attr<Dim>("size")}};
  return {dtype, {}};
}

}  // namespace kiln::ir
