// constant, full, iota, dim_value, data_size.
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
  if (call.op() == Op::data_size) {
    call.expect_rank(0, 0);
    const Dim& size = call.attr<Dim>("size");
    call.expect(size.as_symbol() != nullptr, "the size " + size.str(), "a symbol");
    return call.type(0);
  }
  const DType dtype = call.result_dtype();
  if (call.op() == Op::full) {
    call.expect_held(call.attr<double>("value"), dtype);
    return {dtype, call.dims("shape")};
  }
  if (call.op() == Op::iota) return {dtype, {call.attr<Dim>("size")}};
  return {dtype, {}};
}

}  // namespace kiln::ir
