#include "import/expression.h"

#include <gtest/gtest.h>

#include "support/error.h"

namespace kiln::import {
namespace {

using ir::Dim;

class ExpressionTest : public testing::Test {
 protected:
  Dim parse(std::string_view text) const {
    return parse_expression(text, [this](std::string_view name) -> Dim {
      if (name == "s0") return s0_;
      if (name == "s1") return s1_;
      throw CompileError("unknown symbol " + std::string(name));
    });
  }

  std::string message_of(std::string_view text) const {
    try {
      parse(text);
    } catch (const CompileError& error) {
      return error.what();
    }
    return "no error";
  }

  const Dim s0_ = ir::make_size_symbol("s0", 1, 32, 2);
  const Dim s1_ = ir::make_size_symbol("s1", 8, 256, 16);
  const std::string kS0 = "Symbol('s0', positive=True, integer=True)";
  const std::string kS1 = "Symbol('s1', integer=True)";
};

TEST_F(ExpressionTest, ReadsNumbersAndSymbols) {
  EXPECT_EQ(parse("Integer(7)"), Dim(7));
  EXPECT_EQ(parse("Integer(-3)"), Dim(-3));
  EXPECT_EQ(parse(kS0), s0_);
  EXPECT_EQ(parse("Symbol('s1')"), s1_);
}

TEST_F(ExpressionTest, ReadsArithmetic) {
  EXPECT_EQ(parse("Add(Integer(1), Mul(Integer(2), " + kS0 + "))"), s0_ * 2 + 1);
  EXPECT_EQ(parse("Mul(" + kS0 + ", " + kS1 + ", Integer(3))"), s0_ * s1_ * 3);
  EXPECT_EQ(parse("Pow(" + kS0 + ", Integer(2))"), s0_ * s0_);
  EXPECT_EQ(parse("Max(Integer(4), " + kS0 + ")"), ir::max(4, s0_));
  EXPECT_EQ(parse("Min(Integer(4), " + kS0 + ", " + kS1 + ")"), ir::min(ir::min(4, s0_), s1_));
}

TEST_F(ExpressionTest, ReadsDivisions) {
  EXPECT_EQ(parse("FloorDiv(" + kS0 + ", Integer(2))"), ir::floordiv(s0_, 2));
  EXPECT_EQ(parse("CleanDiv(Mul(Integer(4), " + kS0 + "), Integer(2))"), s0_ * 2);
  EXPECT_EQ(parse("CeilDiv(" + kS0 + ", Integer(3))"), ir::ceildiv(s0_, 3));
  EXPECT_EQ(parse("Mod(" + kS0 + ", Integer(3))"), ir::mod(s0_, 3));
  EXPECT_EQ(parse("PythonMod(" + kS0 + ", Integer(3))"), ir::mod(s0_, 3));
  EXPECT_EQ(parse("ModularIndexing(" + kS0 + ", Integer(2), Integer(4))"),
            ir::mod(ir::floordiv(s0_, 2), 4));
}

// The values of a condition on s0 for s0 = 1 to 8.
TEST_F(ExpressionTest, ReadsConditions) {
  const auto values = [this](const std::string& text) {
    const Dim condition = parse_condition(text, [this](std::string_view) { return s0_; });
    std::string result;
    for (int64_t size = 1; size <= 8; ++size)
      result += condition.evaluate([&](const ir::SymbolPtr&) { return size; }) != 0 ? '1' : '0';
    return result;
  };
  const std::string even = "Equality(Mod(" + kS0 + ", Integer(2)), Integer(0))";
  const std::string above = "StrictGreaterThan(" + kS0 + ", Integer(5))";
  EXPECT_EQ(values(even), "01010101");
  EXPECT_EQ(values("Unequality(" + kS0 + ", Integer(3))"), "11011111");
  EXPECT_EQ(values("LessThan(" + kS0 + ", Integer(3))"), "11100000");
  EXPECT_EQ(values("StrictLessThan(" + kS0 + ", Integer(3))"), "11000000");
  EXPECT_EQ(values("GreaterThan(" + kS0 + ", Integer(3))"), "00111111");
  EXPECT_EQ(values(above), "00000111");
  EXPECT_EQ(values("And(" + even + ", " + above + ")"), "00000101");
  EXPECT_EQ(values("Or(" + even + ", " + above + ")"), "01010111");
  EXPECT_EQ(values("Not(" + above + ")"), "11111000");
  EXPECT_EQ(values("And(true, Add(" + kS0 + ", Integer(-4)))"), "11101111");
  EXPECT_EQ(values("LessThan(Mul(Rational(1, 2), " + kS0 + "), Rational(5, 3))"), "11100000");
  EXPECT_NE(message_of(even), "no error");  // no size
}

TEST_F(ExpressionTest, ReadsFractionsInsideRoundings) {
  const std::string half = "Mul(Rational(1, 2), " + kS0 + ")";
  EXPECT_EQ(parse("floor(" + half + ")"), ir::floordiv(s0_, 2));
  EXPECT_EQ(parse("ceiling(" + half + ")"), ir::ceildiv(s0_, 2));
  EXPECT_EQ(parse("floor(Add(" + half + ", Rational(1, 2)))"), ir::floordiv(s0_ + 1, 2));
  EXPECT_EQ(parse("Mul(Integer(2), " + half + ")"), s0_);
  EXPECT_NE(message_of(half).find("a fraction"), std::string::npos);
}

TEST_F(ExpressionTest, ReadsProductsOfSizesAndFloats) {
  const std::string size = "ToFloat(" + kS0 + ")))";
  EXPECT_EQ(parse("TruncToInt(Mul(Float('2.0', precision=53), " + size), s0_ * 2);
  EXPECT_EQ(parse("TruncToInt(Mul(Float('1.5', precision=53), " + size), ir::floordiv(s0_ * 3, 2));
  const std::string length = "FloatTrueDiv(ToFloat(" + kS0 + "), Float(";
  EXPECT_EQ(parse("CeilToInt(" + length + "'2.0', precision=53)))"), ir::ceildiv(s0_, 2));
  EXPECT_EQ(parse("FloorToInt(" + length + "'0.5', precision=53)))"), s0_ * 2);
  EXPECT_EQ(parse("CeilToInt(" + length + "'-3.0', precision=53)))"), ir::ceildiv(-s0_, 3));
  EXPECT_EQ(parse("FloorToInt(Mul(Float('0.25', precision=53), " + size), ir::floordiv(s0_, 4));
  for (const char* number : {"0.3", "nan", "inf", "1e300", "x", "1.5.5"}) {
    const std::string text = "TruncToInt(Mul(Float('" + std::string(number) + "', precision=53), ";
    EXPECT_NE(message_of(text + size), "no error") << number;
  }
}

TEST_F(ExpressionTest, RefusesWhatIsNoExpression) {
  for (const std::string text :
       {"", "(", "Integer", "Integer(", "Integer(x)", "Integer(1", "Integer(1))", "Add(", "Add()",
        "Symbol(s0)", "Symbol('s0", "Add(Integer(1),)", "1 + 2", "Foo(Integer(1))"}) {
    EXPECT_NE(message_of(text), "no error") << text;
  }
  EXPECT_NE(message_of("Symbol('u0')").find("unknown symbol u0"), std::string::npos);
  EXPECT_NE(message_of("FloorDiv(Integer(1), Integer(0))").find("division by zero"),
            std::string::npos);
  EXPECT_NE(message_of("Mod(Integer(1), Integer(0))").find("division by zero"), std::string::npos);
}

TEST_F(ExpressionTest, RefusesNumbersThatWouldOverflow) {
  const std::string big = "Integer(4611686018427387904)";
  EXPECT_NE(message_of(big).find("too large"), std::string::npos);
  EXPECT_NE(message_of("Integer(99999999999999999999)"), "no error");
  const std::string large = "Integer(1099511627776)";
  EXPECT_NE(message_of("Mul(" + large + ", " + large + ")").find("too large"), std::string::npos);
  EXPECT_NE(message_of("Pow(" + large + ", Integer(9))").find("too large"), std::string::npos);
  EXPECT_NE(message_of("Pow(" + kS0 + ", Integer(1000000))").find("power"), std::string::npos);
}

TEST_F(ExpressionTest, RefusesDeepNesting) {
  std::string text = "Integer(1)";
  for (int i = 0; i < 1000; ++i) text = "Identity(" + text + ")";
  EXPECT_NE(message_of(text).find("deep nesting"), std::string::npos);
}

TEST_F(ExpressionTest, TellsSizesFromWhichOneSymbolFollows) {
  const auto plain = as_linear_size(kS0);
  ASSERT_TRUE(plain);
  EXPECT_EQ(plain->symbol, "s0");
  EXPECT_TRUE(plain->is_plain());
  const auto linear = as_linear_size("Add(Mul(Integer(2), " + kS0 + "), Integer(-3))");
  ASSERT_TRUE(linear);
  EXPECT_EQ(linear->symbol, "s0");
  EXPECT_EQ(linear->factor, 2);
  EXPECT_EQ(linear->offset, -3);
  EXPECT_FALSE(linear->is_plain());
}

TEST_F(ExpressionTest, TellsSizesFromWhichNoSymbolFollows) {
  EXPECT_FALSE(as_linear_size("Integer(2)"));
  EXPECT_FALSE(as_linear_size("Mul(" + kS0 + ", " + kS0 + ")"));
  EXPECT_FALSE(as_linear_size("Mul(Integer(-1), " + kS0 + ")"));
  EXPECT_FALSE(as_linear_size("FloorDiv(" + kS0 + ", Integer(2))"));
  EXPECT_FALSE(as_linear_size("Add(" + kS0 + ", Symbol('s1'))"));
}

}  // namespace
}  // namespace kiln::import
