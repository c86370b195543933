#include "torch/aoti/size_program.h"

#include <gtest/gtest.h>

#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

namespace kiln::aoti {
namespace {

// Instructions with commas between them, and at last an operand.
struct Parsed {
  explicit Parsed(const std::string& text) {
    std::istringstream parts(text);
    for (std::string part; std::getline(parts, part, ',');) {
      std::istringstream words(part);
      std::string function, left, right;
      words >> function >> left >> right;
      if (left.empty())
        operand = program.operand(function);
      else
        program.add(function, left, right);
    }
  }

  SizeProgram program{{2, 1}};
  SizeOperand operand;
};

int64_t evaluate(const std::string& text) {
  const int64_t first[] = {7, 3}, second[] = {10};
  const std::vector<kiln_tensor> inputs{
      {sizeof(kiln_tensor), nullptr, KILN_F32, 2, first, nullptr, {}},
      {sizeof(kiln_tensor), nullptr, KILN_F32, 1, second, nullptr, {}}};
  const Parsed parsed(text);
  return SizeValues(parsed.program, inputs).get(parsed.operand);
}

TEST(SizeProgram, Evaluates) {
  EXPECT_EQ(evaluate("5"), 5);
  EXPECT_EQ(evaluate("-1"), -1);
  EXPECT_EQ(evaluate("i0_1"), 3);
  EXPECT_EQ(evaluate("mul i0_0 2,add #0 1,#1"), 15);
  EXPECT_EQ(evaluate("sub i0_0 i0_1,#0"), 4);
  EXPECT_EQ(evaluate("mul i0_0 -1,floordiv #0 2,mod #0 2,mul #1 #2,#3"), -4);
  EXPECT_EQ(evaluate("lt i0_0 8,eq i0_1 3,and #0 #1,#2"), 1);
}

TEST(SizeProgram, OverflowIsAnErrorWhereItIsNeeded) {
  EXPECT_THROW(evaluate("add 9223372036854775807 1,#0"), std::runtime_error);
  EXPECT_THROW(evaluate("floordiv i0_0 0,add #0 1,#1"), std::runtime_error);
  EXPECT_EQ(evaluate("floordiv i0_0 0,i0_1"), 3);
  EXPECT_EQ(evaluate("eq i0_0 7,floordiv 1 0,or #0 #1,#2"), 1);
}

TEST(SizeProgram, IsAsLongAsItIsDeep) {
  std::string text = "add i0_0 i0_0";
  for (int i = 0; i < 1000; ++i) {  // of which a formula would have 2^1000 terms
    const std::string last = "#" + std::to_string(i);
    text += ",max " + last + " " + last;
  }
  EXPECT_EQ(evaluate(text + ",#1000"), 14);
}

TEST(SizeProgram, ListsTheSizesThatAnOperandIsMadeOf) {
  const Parsed parsed("mul i0_0 2,add i1_0 i0_1,mul #1 i0_1,eq #2 3,#3");
  EXPECT_EQ(parsed.program.sizes_of(parsed.operand), (std::vector<InputSize>{{0, 1}, {1, 0}}));
}

TEST(SizeProgram, RefusesOtherText) {
  for (const char* text :
       {"x", "i", "i0", "i0_2", "i2_0", "i_", "#", "#0", "#x", "1.5", "i0_0_1", "i-1_0",
        "add 1 #0,#0", "plus 1 2,#0", "add 1 x,#0", "add 1,#0", "add 1 2,#1"}) {
    EXPECT_THROW(Parsed{text}, std::runtime_error) << text;
  }
}

}  // namespace
}  // namespace kiln::aoti
