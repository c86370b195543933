// Ops with one, two or three operands that are applied element by element.
#include <algorithm>

#include "ir/builder.h"
#include "ir/infer.h"
#include "ir/unequal_sizes.h"
#include "support/error.h"

namespace kiln::ir {
namespace {

Type infer_where(const Call& call) {
  call.expect(call.type(0).dtype == DType::Bool,
              "a condition of " + std::string(dtype_name(call.type(0).dtype)), "bool");
  call.expect(call.type(1).dtype == call.type(2).dtype,
              "branches of " + std::string(dtype_name(call.type(1).dtype)) + " and " +
                  std::string(dtype_name(call.type(2).dtype)),
              "one dtype");
  const Shape branches = broadcast_shapes(call.shape(1), call.shape(2));
  return {call.result_dtype(), broadcast_shapes(call.shape(0), branches)};
}

void check_gelu(const Call& call) {
  const std::string& form = call.attr<std::string>("approximate");
  call.expect(form == "none" || form == "tanh", "approximate \"" + form + "\"", "none or tanh");
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
      const std::string fault = "[broadcast] got shapes " + shape_str(a) + " and " + shape_str(b) +
                                ", expected sizes that are equal or 1";
      // A size that may be 1 may also be another than the one that it is beside.
      const bool is_one = may_be_equal(x, 1) || may_be_equal(y, 1);
      if (is_one || !may_be_equal(x, y)) throw CompileError(fault);
      throw UnequalSizes(fault, x, y);
    }
    result[offset + i] = y;
  }
  return result;
}

Type infer_pointwise(const Call& call) {
  if (call.op() == Op::where) return infer_where(call);
  call.expect_same_dtypes();
  if (call.op() == Op::gelu) check_gelu(call);
  Type result{call.result_dtype(), call.shape(0)};
  if (call.count() == 2) {
    try {
      result.shape = broadcast_shapes(call.shape(0), call.shape(1));
    } catch (const UnequalSizes&) {
      throw;
    } catch (const CompileError&) {
      call.fail("shapes " + shape_str(call.shape(0)) + " and " + shape_str(call.shape(1)),
                "sizes that are equal or 1");
    }
  }
  return result;
}

}  // namespace kiln::ir
