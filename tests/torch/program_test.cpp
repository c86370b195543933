#include "torch/aoti/program.h"

#include <gtest/gtest.h>

#include <stdexcept>
#include <string>

namespace kiln::aoti {
namespace {

const std::string kText =
    "kiln-program 1\n"
    "in_spec [1, {\"a\": 2}]\n"
    "out_spec [1, {}]\n"
    "size mul i0_0 2\n"
    "input x f32 1..32 16\n"
    "input y i64 2.. =#0 strides i1_1 1\n"
    "constant f32 64 3 4\n"
    "constant f32 128 3 4 strides 1 3\n"
    "engine engine_0.kiln\n"
    "run_engine 0 inputs 0 2 results 2 layouts ;{1,0}\n"
    "run_aten aten::add.Tensor 0 ints 1 i0_0 inputs 4 1 results 1\n"
    "result 6\n"
    "result none\n"
    "result 0\n";

std::string message(const std::string& text) {
  try {
    parse_program(text);
  } catch (const std::runtime_error& error) {
    return error.what();
  }
  return "";
}

TEST(Program, ReadsEveryStatement) {
  const Program program = parse_program(kText);
  EXPECT_EQ(program.in_spec, "[1, {\"a\": 2}]");
  ASSERT_EQ(program.inputs.size(), 2u);
  EXPECT_EQ(program.inputs[0].dims[0].min, 1);
  EXPECT_EQ(program.inputs[0].dims[0].max, 32);
  EXPECT_EQ(program.inputs[1].dims[0].max, INT64_MAX);
  EXPECT_TRUE(program.inputs[1].dims[1].equal.has_value());
  EXPECT_EQ(program.inputs[1].strides.size(), 2u);
  EXPECT_EQ(program.constants[0].offset, 64u);
  EXPECT_EQ(program.constants[0].shape, (std::vector<int64_t>{3, 4}));
  EXPECT_TRUE(program.constants[0].strides.empty());
  EXPECT_EQ(program.constants[1].strides, (std::vector<int64_t>{1, 3}));
  ASSERT_EQ(program.calls.size(), 2u);
  ASSERT_EQ(program.calls[0].layouts.results.size(), 2u);
  EXPECT_TRUE(program.calls[0].layouts.results[0].is_row_major());
  EXPECT_EQ(program.calls[0].layouts.results[1].rank, 2);
  EXPECT_EQ(program.calls[0].inputs, (std::vector<size_t>{0, 2}));
  EXPECT_EQ(program.calls[1].name, "aten::add.Tensor");
  EXPECT_EQ(program.calls[1].ints.size(), 2u);
  EXPECT_EQ(program.num_values, 7u);
  EXPECT_EQ(program.results.size(), 3u);
  EXPECT_FALSE(program.results[1].has_value());
}

TEST(Program, SaysWhichTorchItNeeds) {
  const auto with_line = [](const std::string& line) {
    std::string text = kText;
    return text.insert(text.find("size "), line + "\n");
  };
  EXPECT_EQ(parse_program(kText).needs_torch.major, 0u);
  const Program program = parse_program(with_line("needs_torch 2 12"));
  EXPECT_EQ(program.needs_torch.major, 2u);
  EXPECT_EQ(program.needs_torch.minor, 12u);
  for (const char* line : {"needs_torch", "needs_torch 2", "needs_torch 2 x", "needs_torch 2 300"})
    EXPECT_NE(message(with_line(line)), "") << line;
}

TEST(Program, SizesMayNameLaterInputs) {
  const Program program =
      parse_program("kiln-program 1\nsize mul i1_0 2\ninput x f32 =#0\ninput y f32 1..8\n");
  EXPECT_TRUE(program.inputs[0].dims[0].equal.has_value());
}

TEST(Program, ReadsConditions) {
  const Program program = parse_program(
      "kiln-program 1\nsize eq i0_0 i0_1\ninput x f32 1.. 2..\n"
      "check #0 x.size(0) == x.size(1)\n");
  ASSERT_EQ(program.checks.size(), 1u);
  EXPECT_EQ(program.checks[0].text, "x.size(0) == x.size(1)");
  EXPECT_EQ(program.sizes.sizes_of(program.checks[0].condition).size(), 2u);
}

TEST(Program, LetsValuesGoAfterTheirLastUse) {
  const Program program = parse_program(kText);
  EXPECT_EQ(program.calls[0].dead, (std::vector<size_t>{5}));
  EXPECT_EQ(program.calls[1].dead, (std::vector<size_t>{4}));
}

TEST(Program, NamesTheLineOfAnError) {
  EXPECT_NE(message("kiln-program 2\n").find("line 1: got \"kiln-program 2\""), std::string::npos);
  EXPECT_NE(message("kiln-program 1\nhello\n").find("line 2: got \"hello\""), std::string::npos);
}

TEST(Program, RefusesWhatIsNotThere) {
  const std::string start = "kiln-program 1\ninput x f32 4\nengine e\n";
  for (const char* line : {"run_engine 1 inputs 0 results 1",
                           "run_engine 0 inputs 1 results 1",
                           "run_engine 0 inputs 0 results",
                           "run_engine 0 inputs 0",
                           "run_engine 0 0 results 1",
                           "run_engine 0 inputs 0 results 99999999999",
                           "run_engine 0 inputs 0 results 1 layouts",
                           "run_engine 0 inputs 0 results 1 layout {0}",
                           "run_engine 0 inputs 0 results 1 layouts {1}",
                           "run_engine 0 inputs 0 results 1 layouts {0};",
                           "constant f32 0 2 strides 1 1",
                           "constant f32 0 2 strides x",
                           "run_model inputs 0 engines results 1",
                           "run_aten f x ints inputs results 1",
                           "result 1",
                           "result",
                           "changes 1",
                           "input y f33 4",
                           "input y f32 4 strides 1 1",
                           "input y f32 a",
                           "input y f32 1..b",
                           "input y f32 =i5_0",
                           "input y f32 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1",
                           "constant f32",
                           "constant f32 0 x",
                           "check",
                           "check i1_0 y",
                           "check i0_1 x",
                           "check #0 x",
                           "size",
                           "size add 1",
                           "size plus 1 2",
                           "size add i1_0 2",
                           "size add #0 2"}) {
    EXPECT_NE(message(start + line + "\n").find("line 4"), std::string::npos) << line;
  }
}

}  // namespace
}  // namespace kiln::aoti
