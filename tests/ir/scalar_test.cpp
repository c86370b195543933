// One element of pointwise ops: the edges that machine code has to keep too.
#include "ir/scalar.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "support/error.h"

namespace kiln::ir {
namespace {

constexpr int64_t kSmallest = std::numeric_limits<int64_t>::min();

double real(Op op, double a, double b) {
  const Scalar args[] = {make_scalar(DType::F64, a), make_scalar(DType::F64, b)};
  return evaluate(op, args, false).number;
}

int64_t whole(Op op, DType dtype, int64_t a, int64_t b) {
  const Scalar args[] = {make_scalar_int(dtype, a), make_scalar_int(dtype, b)};
  return evaluate(op, args, false).integer;
}

TEST(ScalarTest, FloatsRoundOnceToTheirType) {
  EXPECT_EQ(make_scalar(DType::F32, 0.1).number, 0.1F);
  EXPECT_EQ(make_scalar(DType::F16, 2049).number, 2048);
  EXPECT_EQ(make_scalar(DType::BF16, 257).number, 256);
}

TEST(ScalarTest, IntegersWrap) {
  EXPECT_EQ(make_scalar_int(DType::U8, 257).integer, 1);
  EXPECT_EQ(whole(Op::add, DType::I8, 127, 1), -128);
  EXPECT_EQ(whole(Op::sub, DType::I64, kSmallest, 1), std::numeric_limits<int64_t>::max());
  EXPECT_EQ(whole(Op::add, DType::Bool, 1, 1), 1);
}

TEST(ScalarTest, FloatToIntegerIsThatOfX86) {
  EXPECT_EQ(to_integer(-1.9, DType::I64), -1);
  for (const double value : {std::nan(""), 0x1p63, -0x1p70, double{INFINITY}}) {
    EXPECT_EQ(to_integer(value, DType::I64), kSmallest) << value;
    EXPECT_EQ(to_integer(value, DType::I32), std::numeric_limits<int32_t>::min()) << value;
    for (const DType narrow : {DType::U8, DType::I8, DType::I16})
      EXPECT_EQ(to_integer(value, narrow), 0) << value << dtype_name(narrow);
  }
  EXPECT_EQ(to_integer(0x1p32 - 1, DType::U8), 255);
  EXPECT_EQ(to_integer(0x1p32 - 1, DType::I16), 0);
  EXPECT_EQ(to_integer(70000, DType::I16), 4464);
  EXPECT_EQ(convert(make_scalar(DType::F32, 300.5), DType::U8).integer, 44);
  EXPECT_EQ(convert(make_scalar(DType::F32, -0.5), DType::Bool).integer, 1);
}

TEST(ScalarTest, DivisionNeverTraps) {
  for (const Op op : {Op::div, Op::floor_div, Op::remainder, Op::fmod}) {
    EXPECT_EQ(whole(op, DType::I64, 7, 0), 0) << op_name(op);
    EXPECT_EQ(whole(op, DType::I64, kSmallest, -1),
              op == Op::div || op == Op::floor_div ? kSmallest : 0)
        << op_name(op);
  }
  EXPECT_EQ(whole(Op::floor_div, DType::I32, -7, 2), -4);
  EXPECT_EQ(whole(Op::remainder, DType::I32, -7, 2), 1);
  EXPECT_EQ(whole(Op::fmod, DType::I32, -7, 2), -1);
}

// 0.9 / 0.1 rounds up to 9, but 0.1 fits into 0.9 only eight times.
TEST(ScalarTest, FlooringDivisionIsExact) {
  EXPECT_EQ(0.9 / 0.1, 9);
  EXPECT_EQ(real(Op::floor_div, 0.9, 0.1), 8);
  EXPECT_EQ(real(Op::floor_div, -7, 2), -4);
  EXPECT_TRUE(std::isinf(real(Op::floor_div, 1, 0)));
}

TEST(ScalarTest, ExtremesKeepNan) {
  for (const Op op : {Op::maximum, Op::minimum}) {
    EXPECT_TRUE(std::isnan(real(op, NAN, 1)));
    EXPECT_TRUE(std::isnan(real(op, 1, NAN)));
  }
}

TEST(ScalarTest, RefusesAnOpOfTheOtherTypes) {
  EXPECT_THROW(whole(Op::atan2, DType::I32, 1, 1), InternalError);
  EXPECT_THROW(real(Op::bitwise_and, 1, 1), InternalError);
}

TEST(ScalarTest, ElementsOfALiteral) {
  std::byte* data = nullptr;
  const Literal literal = Literal::allocate(DType::I64, {2}, &data);
  set_element(data, 1, make_scalar_int(DType::I64, kSmallest + 1));  // no double holds it
  EXPECT_EQ(element(literal, 1).integer, kSmallest + 1);
  EXPECT_EQ(element(literal, 0).integer, 0);
}

}  // namespace
}  // namespace kiln::ir
