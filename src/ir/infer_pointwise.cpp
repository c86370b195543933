// Ops with one, two or three operands that are applied element by element.
#include <algorithm>

#include "ir/builder.h"
#include "ir/infer.h"
#include "ir/op_table.h"
#include "support/error.h"

namespace kiln::ir {
namespace {

bool needs_floating(Op op) {
  switch (op) {
    case Op::exp:
    case Op::exp2:
    case Op::expm1:
    case Op::log:
    case Op::log2:
    case Op::log10:
    case Op::log1p:
    case Op::sqrt:
    case Op::rsqrt:
    case Op::reciprocal:
    case Op::sin:
    case Op::cos:
    case Op::tan:
    case Op::asin:
    case Op::acos:
    case Op::sinh:
    case Op::cosh:
    case Op::tanh:
    case Op::asinh:
    case Op::acosh:
    case Op::atanh:
    case Op::erf:
    case Op::erfc:
    case Op::sigmoid:
    case Op::silu:
    case Op::gelu:
    case Op::atan2:
    case Op::hypot:
      return true;
    default:
      return false;
  }
}

bool is_bitwise(Op op) {
  return op == Op::bitwise_not || op == Op::bitwise_and || op == Op::bitwise_or ||
         op == Op::bitwise_xor;
}

void check_dtype(const Call& call) {
  const DType dtype = call.type(0).dtype;
  if (needs_floating(call.op())) call.expect_floating(0);
  if (is_bitwise(call.op())) {
    call.expect(!is_floating(dtype), std::string(dtype_name(dtype)), "an integer dtype or bool");
  }
  if (call.op() == Op::check_index) {
    call.expect(dtype == DType::I64, std::string(dtype_name(dtype)), "i64");
  }
  if (call.op() == Op::check_nonzero) {
    call.expect(is_integer(dtype), std::string(dtype_name(dtype)), "an integer dtype");
  }
}

Type infer_where(const Call& call) {
  call.expect(call.type(0).dtype == DType::Bool,
              "a condition of " + std::string(dtype_name(call.type(0).dtype)), "bool");
  call.expect(call.type(1).dtype == call.type(2).dtype,
              "branches of " + std::string(dtype_name(call.type(1).dtype)) + " and " +
                  std::string(dtype_name(call.type(2).dtype)),
              "one dtype");
  const Shape branches = broadcast_shapes(call.shape(1), call.shape(2));
  return {call.type(1).dtype, broadcast_shapes(call.shape(0), branches)};
}

Type infer_unary(const Call& call) {
  Type result = call.type(0);
  if (call.op() == Op::cast) result.dtype = call.attr<DType>("dtype");
  if (call.op() == Op::gelu) {
    const std::string& form = call.attr<std::string>("approximate");
    call.expect(form == "none" || form == "tanh", "approximate \"" + form + "\"", "none or tanh");
  }
  return result;
}

}  // namespace

Shape broadcast_shapes(const Shape& a, const Shape& b) {
  const Shape& longer = a.size() >= b.size() ? a : b;
  const Shape& shorter = a.size() >= b.size() ? b : a;
  Shape result = longer;
  const size_t offset = longer.size() - shorter.size();
  for (size_t i = 0; i < shorter.size(); ++i) {
    const Dim &x = longer[offset + i], &y = shorter[i];
    if (y.is_constant(1) || provably_equal(x, y)) continue;
    if (!x.is_constant(1)) {
      throw CompileError("[broadcast] got shapes " + shape_str(a) + " and " + shape_str(b) +
                         ", expected sizes that are equal or 1");
    }
    result[offset + i] = y;
  }
  return result;
}

Type infer_pointwise(const Call& call) {
  if (call.op() == Op::where) return infer_where(call);
  call.expect_same_dtypes();
  check_dtype(call);
  Type result = infer_unary(call);
  if (call.count() == 2) {
    try {
      result.shape = broadcast_shapes(call.shape(0), call.shape(1));
    } catch (const CompileError&) {
      call.fail("shapes " + shape_str(call.shape(0)) + " and " + shape_str(call.shape(1)),
                "sizes that are equal or 1");
    }
  }
  if (gives_bool(call.op())) result.dtype = DType::Bool;
  return result;
}

}  // namespace kiln::ir
