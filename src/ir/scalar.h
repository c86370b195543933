// One element at compile time: what folding and the interpreter compute with.
#pragma once

#include <span>

#include "ir/graph.h"
#include "support/dtype.h"

namespace kiln::plan {

// `number` holds floating values, `integer` integers and bool.
struct Scalar {
  DType dtype = DType::F32;
  double number = 0;
  int64_t integer = 0;

  double as_double() const { return is_floating(dtype) ? number : static_cast<double>(integer); }
  bool truth() const { return is_floating(dtype) ? number != 0 : integer != 0; }
};

// Rounded or wrapped to the dtype.
Scalar make_scalar(DType dtype, double value);
Scalar make_scalar_int(DType dtype, int64_t value);
Scalar convert(const Scalar& value, DType dtype);

// A pointwise op of ops.def, `cast` excepted, on operands of the dtypes it asks for.
Scalar evaluate(ir::Op op, std::span<const Scalar> args, bool gelu_tanh);

// The dtype of a pointwise op's result.
DType result_dtype(ir::Op op, std::span<const DType> args);

}  // namespace kiln::plan
