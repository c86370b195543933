// Calls of kernels of the user's own: how they are lowered, what passes do around them, and rule P18. No interpreter
// runs them; tests/capi/custom_kernels_test.cpp and tests/python/frontend/test_custom_kernels.py do.
#include <gtest/gtest.h>

#include <functional>

#include "plan/compare.h"
#include "plan/passes/pass.h"
#include "support/error.h"

namespace kiln::plan {
namespace {

std::string custom(const std::string& operands, const std::string& attributes) {
  return "custom(" + operands + ") {kernel = \"my::op\", arguments = \"{}\", " + attributes + "}";
}

const std::string kTwoSizes = "dtypes = [0], ranks = [2], shapes = [s, 4]";

std::string graph(const std::string& body, const std::string& result) {
  return "graph main(%x: f32[s, 4]) symbols s in [1, 9] opt 5 {\n" + body + "\n  return " + result +
         "\n}\n";
}

Program planned(const std::string& text) {
  Program program = lowered(text);
  verify(program);
  run_pipeline(program, {});
  verify(program);
  return program;
}

TEST(CustomTest, ReadsAndWritesWholeBuffers) {
  const Program program = lowered(graph("%y = " + custom("%x", kTwoSizes), "%y as \"y\""));
  EXPECT_EQ(to_text(program), R"(program main
symbol s in [1, 9], opt 5
%0 = input x: f32[s, 4]
%1 = output y: f32[s, 4]
kernel custom_0: custom my::op {}
  input %0 as [s, 4]
  output %1 as [s, 4]
)");
}

TEST(CustomTest, TakesReshapesAsTheyAreAndCopiesOtherViews) {
  const std::string reshaped =
      "%v = reshape(%x) {shape = [4*s]}\n%y = " + custom("%v, %x", kTwoSizes);
  EXPECT_EQ(kernels_text(lowered(graph(reshaped, "%y as \"y\""))),
            "kernel custom_0: custom my::op {}\n  input %0 as [s*4]\n  input %0 as [s, 4]\n"
            "  output %1 as [s, 4]\n");
  const std::string permuted = "%v = permute(%x) {axes = [1, 0]}\n%y = " + custom("%v", kTwoSizes);
  EXPECT_EQ(kernels_text(lowered(graph(permuted, "%y as \"y\""))),
            "kernel copy_0: nest over i0 < 4, i1 < s\n  %2[i0, i1] = %0[i1, i0]\n"
            "kernel custom_1: custom my::op {}\n  input %2 as [4, s]\n  output %1 as [s, 4]\n");
}

TEST(CustomTest, WritesAnOutputThatIsAReshapeOfItsResult) {
  const std::string body = "%v = " + custom("%x", kTwoSizes) + "\n%y = reshape(%v) {shape = [4*s]}";
  const Program program = planned(graph(body, "%y as \"y\""));
  ASSERT_EQ(program.kernels.size(), 1u) << to_text(program);
  EXPECT_EQ(writes(program.kernels[0]), program.outputs);
}

TEST(CustomTest, StaysWhereItIsBetweenOthers) {
  const std::string body = "%a = exp(%x)\n%b = " + custom("%a", kTwoSizes) +
                           "\n%unused = " + custom("%x", kTwoSizes) + "\n%y = tanh(%b)";
  const Program program = planned(graph(body, "%y as \"y\""));
  EXPECT_EQ(program.kernels.size(), 4u) << to_text(program);
}

std::string error_of(const Program& program) {
  try {
    verify(program);
  } catch (const InternalError& error) {
    return error.what();
  }
  return "no error";
}

TEST(CustomTest, KeepsRuleP18) {
  const auto broken = [](const std::function<void(Program&, Custom&)>& change) {
    Program program = lowered(graph("%y = " + custom("%x", kTwoSizes), "%y as \"y\""));
    change(program, std::get<Custom>(program.kernels[0].body));
    return error_of(program);
  };
  const auto expect_rule = [](const std::string& error) {
    EXPECT_NE(error.find("plan rule P18"), std::string::npos) << error;
  };
  EXPECT_EQ(broken([](Program&, Custom&) {}), "no error");
  expect_rule(broken([](Program& program, Custom&) { program.traits.calls = false; }));
  expect_rule(broken([](Program&, Custom& call) { call.inputs[0].shape[1] = 3; }));
  expect_rule(broken([](Program&, Custom& call) { call.outputs[0].shape[1] = 3; }));
  expect_rule(broken([](Program&, Custom& call) { call.outputs.push_back(call.outputs[0]); }));
  expect_rule(broken([](Program&, Custom& call) { call.inputs.clear(), call.kernel.clear(); }));
}

TEST(CustomTest, IsForTargetsThatCall) {
  const ir::Graph parsed = make_graph(graph("%y = " + custom("%x", kTwoSizes), "%y as \"y\""));
  EXPECT_THROW(lower(parsed, TargetTraits()), CompileError);
}

}  // namespace
}  // namespace kiln::plan
