#include "torch/aoti/size_expression.h"

#include <gtest/gtest.h>

#include <stdexcept>
#include <string>
#include <vector>

namespace kiln::aoti {
namespace {

const std::vector<int32_t> kRanks{2, 1};

int64_t evaluate(std::string_view text) {
  const int64_t first[] = {7, 3}, second[] = {10};
  const std::vector<kiln_tensor> inputs{{nullptr, KILN_F32, 2, first, nullptr},
                                        {nullptr, KILN_F32, 1, second, nullptr}};
  return SizeExpression::parse(text, kRanks).evaluate(inputs);
}

TEST(SizeExpression, Evaluates) {
  EXPECT_EQ(evaluate("5"), 5);
  EXPECT_EQ(evaluate("-1"), -1);
  EXPECT_EQ(evaluate("i0_1"), 3);
  EXPECT_EQ(evaluate("i0_0,2,*,1,+"), 15);
  EXPECT_EQ(evaluate("i0_0,i0_1,-"), 4);
  EXPECT_EQ(evaluate("i0_0,i0_1,max"), 7);
  EXPECT_EQ(evaluate("i0_0,i0_1,min"), 3);
  EXPECT_EQ(evaluate("i1_0,2,**"), 100);
}

TEST(SizeExpression, DividesLikePython) {
  EXPECT_EQ(evaluate("i0_0,2,//"), 3);
  EXPECT_EQ(evaluate("i0_0,-1,*,2,//"), -4);
  EXPECT_EQ(evaluate("i0_0,-1,*,2,%"), 1);
  EXPECT_THROW(evaluate("i0_0,0,//"), std::runtime_error);
  EXPECT_THROW(evaluate("i0_0,0,%"), std::runtime_error);
}

TEST(SizeExpression, Compares) {
  EXPECT_EQ(evaluate("i0_0,7,=="), 1);
  EXPECT_EQ(evaluate("i0_0,8,=="), 0);
  EXPECT_EQ(evaluate("i0_0,7,!="), 0);
  EXPECT_EQ(evaluate("i0_0,8,!="), 1);
  EXPECT_EQ(evaluate("i0_0,7,<"), 0);
  EXPECT_EQ(evaluate("i0_0,7,<="), 1);
  EXPECT_EQ(evaluate("i0_0,7,>"), 0);
  EXPECT_EQ(evaluate("i0_0,7,>="), 1);
  EXPECT_EQ(evaluate("i0_0,8,<,i0_1,3,==,and"), 1);
  EXPECT_EQ(evaluate("i0_0,8,<,i0_1,4,==,and"), 0);
  EXPECT_EQ(evaluate("i0_0,8,==,i0_1,3,==,or"), 1);
  EXPECT_EQ(evaluate("i0_0,8,==,i0_1,4,==,or"), 0);
}

TEST(SizeExpression, SaysWhatDoesNotFitInto64Bits) {
  const std::string large = "9223372036854775807", least = "-9223372036854775808";
  const std::vector<std::string> texts{large + ",1,+",        least + ",1,-",  large + ",2,*",
                                       least + ",-1,//",      least + ",-1,*", "i1_0,64,**",
                                       "-2," + large + ",**", "2,64,**"};
  for (const std::string& text : texts) {
    EXPECT_THROW(evaluate(text), std::runtime_error) << text;
  }
  EXPECT_EQ(evaluate(least + ",-1,%"), 0);
  EXPECT_EQ(evaluate("1," + large + ",**"), 1);
  EXPECT_EQ(evaluate("0," + large + ",**"), 0);
  EXPECT_EQ(evaluate("0,0,**"), 1);
  EXPECT_EQ(evaluate("-1,3,**"), -1);
}

TEST(SizeExpression, ListsItsSizesOnce) {
  const auto sizes = SizeExpression::parse("i0_1,i1_0,+,i0_1,*,3,==", kRanks).sizes();
  ASSERT_EQ(sizes.size(), 2u);
  EXPECT_EQ(sizes[0], (SizeExpression::Size{0, 1}));
  EXPECT_EQ(sizes[1], (SizeExpression::Size{1, 0}));
}

TEST(SizeExpression, OverflowIsAnError) {
  for (const char* text :
       {"9223372036854775807,1,+", "-9223372036854775807,2,-", "4294967296,i1_0,*,4294967296,*",
        "-9223372036854775808,-1,//", "i1_0,19,**", "2,63,**", "2,9223372036854775807,**"}) {
    EXPECT_THROW(evaluate(text), std::runtime_error) << text;
  }
  EXPECT_EQ(evaluate("i1_0,18,**"), 1000000000000000000);
  EXPECT_EQ(evaluate("-1,9223372036854775807,**"), -1);
  EXPECT_EQ(evaluate("-1,9223372036854775806,**"), 1);
  EXPECT_EQ(evaluate("-9223372036854775808,-1,%"), 0);
}

TEST(SizeExpression, RefusesOtherText) {
  for (const char* text : {"", ",", "x", "i", "i0", "i0_2", "i2_0", "i_", "1,", "1,2", "+", "1,+",
                           "1,2,+,+", "1.5", "i0_0_1", "i-1_0"}) {
    EXPECT_THROW(SizeExpression::parse(text, kRanks), std::runtime_error) << text;
  }
  std::string deep = "1";
  for (int i = 0; i < 100; ++i) {
    deep += ",1";
  }
  EXPECT_THROW(SizeExpression::parse(deep, kRanks), std::runtime_error);
}

}  // namespace
}  // namespace kiln::aoti
