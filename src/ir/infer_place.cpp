// Ops whose results depend on data for where elements come from or go to.
#include <array>

#include "ir/infer.h"
#include "support/error.h"

namespace kiln::ir {
namespace {

Type infer_argsort(const Call& call) {
  Type result = call.type(0);
  const int64_t axis = call.integer("axis");
  call.expect_axis(axis, result.rank());
  const Dim &count = call.attr<Dim>("count"), &size = result.shape[static_cast<size_t>(axis)];
  call.expect(count.upper_bound() >= 0 && !provably_less(size, count), "count " + count.str(),
              "0 to " + size.str());
  result.dtype = DType::I64;
  result.shape[static_cast<size_t>(axis)] = count;
  return result;
}

bool is_combination(const std::string& name) {
  constexpr std::array<const char*, 5> kNames = {"replace", "sum", "prod", "max", "min"};
  for (const char* known : kNames)
    if (name == known) return true;
  return false;
}

Type infer_scatter(const Call& call) {
  const Type& x = call.type(0);
  const int64_t axis = call.integer("axis");
  call.expect_axis(axis, x.rank());
  call.expect(call.type(1).dtype == DType::I64,
              "an index of " + std::string(dtype_name(call.type(1).dtype)), "i64");
  call.expect(call.type(2).dtype == x.dtype,
              "a source of " + std::string(dtype_name(call.type(2).dtype)),
              std::string(dtype_name(x.dtype)));
  const std::string& combine = call.attr<std::string>("combine");
  call.expect(is_combination(combine), "combine \"" + combine + "\"",
              "replace, sum, prod, max or min");
  for (size_t operand : {1, 2}) {
    call.expect_rank(operand, x.rank());
    Shape expected = x.shape;
    expected[static_cast<size_t>(axis)] = call.shape(1)[static_cast<size_t>(axis)];
    for (size_t i = 0; i < x.rank(); ++i) {
      const Dim& size = call.shape(operand)[i];
      call.expect(
          size.is_constant(1) || provably_equal(size, expected[i]),
          "operand " + std::to_string(operand) + " of shape " + shape_str(call.shape(operand)),
          shape_str(expected) + ", or 1 in place of sizes");
    }
  }
  return x;
}

}  // namespace

Type infer_place(const Call& call) {
  if (call.op() == Op::argsort) return infer_argsort(call);
  KILN_CHECK(call.op() == Op::scatter, "no op of this family: " + std::string(op_name(call.op())));
  return infer_scatter(call);
}

}  // namespace kiln::ir
