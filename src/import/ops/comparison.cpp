// Comparisons, logic and bits.
#include <cmath>

#include "import/ops/common.h"

namespace kiln::import {
namespace {

template <Op op>
Value* compare(Call& call) {
  const std::vector<Value*> values =
      promote(call.builder(), {call.operand("self"), call.operand("other")});
  return call.make(op, {values[0], values[1]});
}

template <Op op>
Value* test(Call& call) {
  return call.make(op, {call.tensor("self")});
}

Value* as_bool(Call& call, std::string_view name) {
  return as_value(call.builder(), call.operand(name), DType::Bool);
}

// Any dtype counts as bool.
template <Op op>
Value* logical(Call& call) {
  Value* a = as_bool(call, "self");
  Value* b = as_bool(call, "other");
  return call.make(op, {a, b});
}

// Bits that are shifted are products and quotients of powers of two, one for each bit of the number of places. What is
// shifted by more places than there are, or by less than none, has nothing left but its sign.
template <Op op>
Value* shift(Call& call) {
  const std::vector<Value*> values =
      promote(call.builder(), {call.operand("self"), call.operand("other")});
  const DType dtype = values[0]->type.dtype;
  call.expect(is_integer(dtype), std::string(dtype_name(dtype)), "integers");
  const int bits = 8 * static_cast<int>(dtype_size(dtype));
  Expr x(call, values[0]), places(call, values[1]);
  const Expr fits = places.apply(Op::ge, 0).apply(Op::bitwise_and, places.apply(Op::lt, bits));
  const bool keeps_sign = op == Op::floor_div && is_signed_integer(dtype);
  if (keeps_sign) places = fits.select(places, places.constant(bits - 1));
  for (int bit = 1; bit < bits; bit *= 2) {
    const Expr is_set = places.apply(Op::bitwise_and, bit).apply(Op::ne, 0);
    x = is_set.select(x.apply(op, std::ldexp(1.0, bit)), x);
  }
  return keeps_sign ? x : fits.select(x, x.constant(0));
}

Value* import_isfinite(Call& call) {
  const Expr x(call, call.tensor("self"));
  const Expr infinite = x.apply(Op::isnan).apply(Op::bitwise_or, x.apply(Op::isinf));
  return infinite.apply(Op::logical_not);
}

Value* import_isposinf(Call& call) {
  const Expr x(call, call.tensor("self"));
  return x.apply(Op::isinf).apply(Op::bitwise_and, x.apply(Op::gt, 0));
}

Value* import_isneginf(Call& call) {
  const Expr x(call, call.tensor("self"));
  return x.apply(Op::isinf).apply(Op::bitwise_and, x.apply(Op::lt, 0));
}

constexpr Row kRows[] = {
    {"aten.eq.Tensor", compare<Op::eq>},
    {"aten.eq.Scalar", compare<Op::eq>},
    {"aten.ne.Tensor", compare<Op::ne>},
    {"aten.ne.Scalar", compare<Op::ne>},
    {"aten.not_equal.Tensor", compare<Op::ne>},
    {"aten.not_equal.Scalar", compare<Op::ne>},
    {"aten.lt.Tensor", compare<Op::lt>},
    {"aten.lt.Scalar", compare<Op::lt>},
    {"aten.less.Tensor", compare<Op::lt>},
    {"aten.less.Scalar", compare<Op::lt>},
    {"aten.le.Tensor", compare<Op::le>},
    {"aten.le.Scalar", compare<Op::le>},
    {"aten.less_equal.Tensor", compare<Op::le>},
    {"aten.less_equal.Scalar", compare<Op::le>},
    {"aten.gt.Tensor", compare<Op::gt>},
    {"aten.gt.Scalar", compare<Op::gt>},
    {"aten.greater.Tensor", compare<Op::gt>},
    {"aten.greater.Scalar", compare<Op::gt>},
    {"aten.ge.Tensor", compare<Op::ge>},
    {"aten.ge.Scalar", compare<Op::ge>},
    {"aten.greater_equal.Tensor", compare<Op::ge>},
    {"aten.greater_equal.Scalar", compare<Op::ge>},
    {"aten.isnan.default", test<Op::isnan>},
    {"aten.isinf.default", test<Op::isinf>},
    {"aten.isfinite.default", import_isfinite},
    {"aten.isposinf.default", import_isposinf},
    {"aten.isneginf.default", import_isneginf},
    {"aten.logical_not.default", test<Op::logical_not>},
    {"aten.logical_and.default", logical<Op::bitwise_and>},
    {"aten.logical_or.default", logical<Op::bitwise_or>},
    {"aten.logical_xor.default", logical<Op::bitwise_xor>},
    {"aten.bitwise_not.default", test<Op::bitwise_not>},
    {"aten.bitwise_and.Tensor", compare<Op::bitwise_and>},
    {"aten.bitwise_and.Scalar", compare<Op::bitwise_and>},
    {"aten.bitwise_and.Scalar_Tensor", compare<Op::bitwise_and>},
    {"aten.bitwise_or.Tensor", compare<Op::bitwise_or>},
    {"aten.bitwise_or.Scalar", compare<Op::bitwise_or>},
    {"aten.bitwise_or.Scalar_Tensor", compare<Op::bitwise_or>},
    {"aten.bitwise_xor.Tensor", compare<Op::bitwise_xor>},
    {"aten.bitwise_xor.Scalar", compare<Op::bitwise_xor>},
    {"aten.bitwise_xor.Scalar_Tensor", compare<Op::bitwise_xor>},
    {"aten.__and__.Tensor", compare<Op::bitwise_and>},
    {"aten.__and__.Scalar", compare<Op::bitwise_and>},
    {"aten.__or__.Tensor", compare<Op::bitwise_or>},
    {"aten.__or__.Scalar", compare<Op::bitwise_or>},
    {"aten.__xor__.Tensor", compare<Op::bitwise_xor>},
    {"aten.__xor__.Scalar", compare<Op::bitwise_xor>},
    {"aten.__lshift__.Tensor", shift<Op::mul>},
    {"aten.__lshift__.Scalar", shift<Op::mul>},
    {"aten.bitwise_left_shift.Tensor", shift<Op::mul>},
    {"aten.bitwise_left_shift.Tensor_Scalar", shift<Op::mul>},
    {"aten.bitwise_left_shift.Scalar_Tensor", shift<Op::mul>},
    {"aten.__rshift__.Tensor", shift<Op::floor_div>},
    {"aten.__rshift__.Scalar", shift<Op::floor_div>},
    {"aten.bitwise_right_shift.Tensor", shift<Op::floor_div>},
    {"aten.bitwise_right_shift.Tensor_Scalar", shift<Op::floor_div>},
    {"aten.bitwise_right_shift.Scalar_Tensor", shift<Op::floor_div>},
};

}  // namespace

Rows comparison_rows() { return kRows; }

}  // namespace kiln::import
