// One element at compile time: what the reference, folding and the interpreter of plans compute
// with. Floating values are computed in double and rounded once, integers and bools in int64_t and
// wrapped.
#pragma once

#include <span>

#include "ir/graph.h"
#include "support/dtype.h"

namespace kiln::ir {

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
// Float to integer, as PyTorch does it on x86: towards zero. What does not fit the type that the
// hardware converts to (int64_t for i64 and u8, int32_t for the others) is the least value of that
// one. Wrapped to the dtype.
int64_t to_integer(double value, DType dtype);
// The number that a tensor of the dtype holds for a value: rounded or cut off; 0.5 is true.
double held_number(DType dtype, double value);
Scalar convert(const Scalar& value, DType dtype);

// Element `index` (row-major) of a literal, and the same stored in the buffer of its `allocate`;
// the scalar has the literal's dtype.
Scalar element(const Literal& literal, int64_t index);
void set_element(std::byte* data, int64_t index, const Scalar& value);

// A pointwise op of ops.def, `cast` excepted, on operands of the dtypes it asks for.
Scalar evaluate(Op op, std::span<const Scalar> args, bool gelu_tanh);

// The dtype of a pointwise op's result.
DType result_dtype(Op op, std::span<const DType> args);

}  // namespace kiln::ir
