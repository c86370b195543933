// quantize and dequantize.
#include "ir/infer.h"

namespace kiln::ir {
namespace {

std::string attribute_str(std::string_view name, int64_t value) {
  return std::string(name) + " = " + std::to_string(value);
}

// The operand is aligned with x at the right, and along each axis its size divides x's: each of its
// elements belongs to a block of x.
void expect_blocks(const Call& call, size_t i) {
  const Shape &x = call.shape(0), &own = call.shape(i);
  const std::string got = "operand " + std::to_string(i) + " of shape " + shape_str(own);
  call.expect(own.size() <= x.size(), got, "at most the rank of " + shape_str(x));
  for (size_t k = 0; k < own.size(); ++k) {
    const Dim& size = x[x.size() - own.size() + k];
    const bool divides = own[k].is_constant(1) || provably_equal(own[k], size) ||
                         (own[k].lower_bound() >= 1 && provably_divisible(size, own[k]));
    call.expect(divides, got, "sizes that divide those of " + shape_str(x));
  }
}

void expect_range(const Call& call, DType dtype) {
  const int64_t low = call.integer("quant_min"), high = call.integer("quant_max");
  const int64_t least = least_integer(dtype), most = greatest_integer(dtype);
  call.expect(low >= least && low <= most, attribute_str("quant_min", low),
              "a value of " + std::string(dtype_name(dtype)));
  call.expect(high >= low && high <= most, attribute_str("quant_max", high),
              std::to_string(low) + " to " + std::to_string(most));
}

}  // namespace

Type infer_quantise(const Call& call) {
  const DType scale = call.type(1).dtype, result = call.result_dtype();
  call.expect(is_floating(scale), "a scale of " + std::string(dtype_name(scale)),
              "a floating dtype");
  for (size_t i = 1; i < call.count(); ++i) {
    if (call.has(i)) expect_blocks(call, i);
  }
  if (call.has(2)) {
    call.expect(call.type(2).dtype != DType::Bool, "a zero point of bool", "a number");
  }
  const bool quantises = call.op() == Op::quantize;
  call.expect(quantises ? is_integer(result) : is_floating(result),
              "dtype " + std::string(dtype_name(result)),
              quantises ? "an integer dtype" : "a floating dtype");
  if (quantises) expect_range(call, result);
  return {result, call.shape(0)};
}

}  // namespace kiln::ir
