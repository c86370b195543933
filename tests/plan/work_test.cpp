// How much work a kernel is said to be: counted by hand.
#include "plan/form/work.h"

#include <gtest/gtest.h>

#include "ir/text.h"
#include "plan/compare.h"
#include "plan/lower/lower.h"
#include "plan/passes/pass.h"

namespace kiln::plan {
namespace {

std::vector<Work> works_of(const std::string& inputs, const std::string& body) {
  const ir::Graph graph =
      ir::parse_graph("graph main(" + inputs + ") symbols s0 in [1, 9] opt 4 {\n" + body +
                      "\n  return %y as \"y\"\n}\n");
  Program program = lower(graph, test_traits());
  run_pipeline(program, {});
  std::vector<Work> works;
  for (const Kernel& kernel : program.kernels) works.push_back(work_of(program, kernel));
  return works;
}

// Of the only kernel, at s0 = 4.
void expect_work(const std::string& inputs, const std::string& body, int64_t operations,
                 int64_t bytes, const std::string& precision = "f32") {
  const std::vector<Work> works = works_of(inputs, body);
  ASSERT_EQ(works.size(), 1U) << body;
  EXPECT_EQ(works[0].operations.at_opt(), operations) << body;
  EXPECT_EQ(works[0].bytes.at_opt(), bytes) << body;
  EXPECT_EQ(works[0].precision, precision) << body;
}

TEST(WorkTest, Pointwise) {
  // An addition and a root of 4 x 6 elements, and a row of 6 that all share.
  expect_work("%x: f32[s0, 6], %z: f32[6]", "%a = add(%x, %z)\n %y = sqrt(%a)", 48,
              4 * (24 + 6 + 24));
  expect_work("%x: i64[s0]", "%y = cast(%x) {dtype = f32}", 0, 4 * 8 + 4 * 4);
  expect_work("%x: f64[s0]", "%y = add(%x, %x)", 4, 2 * 4 * 8, "f64");
}

// Sizes stay symbols: what a run computes with.
TEST(WorkTest, FollowsSizes) {
  const std::vector<Work> works = works_of("%x: f32[s0, 6]", "%y = relu(%x)");
  ASSERT_EQ(works.size(), 1U);
  EXPECT_EQ(works[0].operations.evaluate([](const ir::SymbolPtr&) { return int64_t{9}; }), 54);
}

TEST(WorkTest, Product) {
  // Weights are read once, and the bias.
  expect_work("%x: f32[s0, 16], %w: f32[8, 16], %b: f32[8]", "%y = linear(%x, %w, %b)",
              2 * 4 * 8 * 16 + 4 * 8, 4 * (4 * 16 + 8 * 16 + 8 + 4 * 8));
}

TEST(WorkTest, RowsOfATable) {
  // Four rows of a table of a thousand.
  expect_work("%t: f32[1000, 16], %i: i64[s0]", "%y = gather(%t, %i) {axis = 0}", 0,
              4 * 8 + 4 * 16 * 4 + 4 * 16 * 4);
}

}  // namespace
}  // namespace kiln::plan
