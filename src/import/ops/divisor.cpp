// Greatest common divisors and least common multiples, by Euclid's algorithm: a loop until no pair has a remainder.
#include "import/ops/common.h"
#include "import/repeat.h"

namespace kiln::import {
namespace {

Value* any(Call& call, const Expr& condition) {
  const auto rank = static_cast<int64_t>(condition.value()->type.rank());
  return reduce(call, Op::reduce_max, condition, range(0, rank), false);
}

// Both in their common dtype and shape.
std::vector<Value*> operands(Call& call) {
  std::vector<Value*> values =
      promote(call.builder(), {call.operand("self"), call.operand("other")});
  const DType dtype = values[0]->type.dtype;
  call.expect(is_integer(dtype), "dtype " + std::string(dtype_name(dtype)), "integers");
  const ir::Shape shape = ir::broadcast_shapes(values[0]->type.shape, values[1]->type.shape);
  for (Value*& value : values) value = call.builder().expand(value, shape);
  return values;
}

// Of the absolute values. The least integer has none and stays as it is, as in PyTorch.
Expr greatest_divisor(Call& call, const Expr& a, const Expr& b) {
  Repeat repeat(call.builder());
  const std::vector<Value*> carried =
      repeat.carry({a.apply(Op::abs).value(), b.apply(Op::abs).value()});
  Call inner(call, repeat.builder());
  const Expr first(inner, carried[0]), second(inner, carried[1]);
  const Expr is_done = first.apply(Op::eq, 0);
  const Expr divisor = is_done.select(first.constant(1), first);
  const Expr rest = is_done.select(first, second.apply(Op::fmod, divisor));
  const Expr next = is_done.select(second, first);
  Value* begins = any(call, a.apply(Op::ne, 0));
  return {call, repeat.finish(begins, any(inner, rest.apply(Op::ne, 0)), {rest, next})[1]};
}

Value* import_gcd(Call& call) {
  const std::vector<Value*> values = operands(call);
  return greatest_divisor(call, {call, values[0]}, {call, values[1]});
}

Value* import_lcm(Call& call) {
  const std::vector<Value*> values = operands(call);
  const DType dtype = values[0]->type.dtype;
  // Products of shorter integers are ints, whose absolute value is cut.
  const DType wide = dtype == DType::I64 ? dtype : DType::I32;
  const Expr a(call, call.builder().cast(values[0], wide));
  const Expr b(call, call.builder().cast(values[1], wide));
  const Expr divisor(call, call.builder().cast(
                               greatest_divisor(call, {call, values[0]}, {call, values[1]}), wide));
  const Expr none = divisor.apply(Op::eq, 0);
  const Expr product = a / none.select(divisor.constant(1), divisor) * b;
  return call.builder().cast(none.select(divisor, product.apply(Op::abs)), dtype);
}

constexpr Row kRows[] = {
    {"aten.gcd.default", import_gcd},
    {"aten.lcm.default", import_lcm},
};

}  // namespace

Rows divisor_rows() { return kRows; }

}  // namespace kiln::import
