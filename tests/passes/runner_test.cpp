#include "passes/runner.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <sstream>

#include "ir/builder.h"
#include "ir/text.h"
#include "support/error.h"

namespace kiln::passes {
namespace {

namespace fs = std::filesystem;

constexpr const char* kGraph = R"(graph main(%x: f32[4]) {
  %a = neg(%x)
  %b = neg(%a)
  %dead = exp(%x)
  return %b as "y"
})";

TEST(RunnerTest, ReportsEveryPass) {
  ir::Graph graph = ir::parse_graph(kGraph);
  PassContext context;
  const auto reports = run_pipeline(graph, context, {.verify = true});
  ASSERT_FALSE(reports.empty());
  EXPECT_EQ(reports[0].name, "canonicalise");
  EXPECT_TRUE(reports[0].changed);
  EXPECT_GE(reports[0].milliseconds, 0);
  EXPECT_EQ(ir::to_text(graph), "graph main(%x: f32[4]) {\n  return %x as \"y\"\n}\n");
}

TEST(RunnerTest, SkipsDisabledPasses) {
  ir::Graph graph = ir::parse_graph(kGraph);
  PassContext context;
  const auto reports = run_pipeline(graph, context, {.disabled = {"canonicalise"}});
  for (const PassReport& report : reports) EXPECT_NE(report.name, "canonicalise");
  EXPECT_EQ(graph.nodes().size(), 2u);
}

TEST(RunnerTest, RefusesUnknownNamesWithTheNearest) {
  ir::Graph graph;
  PassContext context;
  try {
    run_pipeline(graph, context, {.disabled = {"canonicalize"}});
    FAIL();
  } catch (const CompileError& error) {
    EXPECT_STREQ(error.what(),
                 "[passes] got \"canonicalize\", expected the name of a pass; the nearest is "
                 "\"canonicalise\"");
  }
}

TEST(RunnerTest, DumpsAfterPassesThatChangeTheGraph) {
  const fs::path directory = fs::path(testing::TempDir()) / "kiln_runner_test";
  fs::remove_all(directory);
  ir::Graph graph = ir::parse_graph(kGraph);
  PassContext context;
  run_pipeline(graph, context, {.dump_directory = directory.string()});
  EXPECT_TRUE(fs::exists(directory / "000_input.ir"));
  ASSERT_TRUE(fs::exists(directory / "001_canonicalise.ir"));
  EXPECT_FALSE(fs::exists(directory / "002_simplify_shapes.ir"));
  std::stringstream text;
  text << std::ifstream(directory / "001_canonicalise.ir").rdbuf();
  EXPECT_EQ(text.str(), ir::to_text(graph));
  fs::remove_all(directory);
}

TEST(RunnerTest, RefusesADirectoryThatCannotBeMade) {
  ir::Graph graph;
  PassContext context;
  EXPECT_THROW(run_pipeline(graph, context, {.dump_directory = "/dev/null/x"}), CompileError);
}

TEST(RunnerTest, VerifiesAfterEachPass) {
  ir::Graph graph = ir::parse_graph(kGraph);
  graph.outputs()[0]->type.shape = {5};
  PassContext context;
  const RunOptions options{.verify = true};
  Runner runner(graph, context, options);
  try {
    runner.run(eliminate_dead_code);
    FAIL();
  } catch (const InternalError& error) {
    EXPECT_TRUE(std::string(error.what()).starts_with("after pass eliminate_dead_code: rule R6"))
        << error.what();
  }
}

TEST(RunnerTest, IsDeterministic) {
  constexpr const char* kModel = R"(graph main(%x: f32[b, 2, 4, 4]) symbols b in [1, 8] opt 2 {
    %w = constant() {value = f32[2, 2, 1, 1] [1, 2, 3, 4]}
    %k = constant() {value = f32[2] [1, 2]}
    %c = convolution(%x, %w, %k) {stride = [1, 1], padding_before = [0, 0], padding_after = [0, 0], dilation = [1, 1], groups = 1, layout = "nchw"}
    %n = batch_norm(%c, %k, %k, %k, %k) {eps = 1e-5}
    %r = relu(%n)
    %s = add(%r, %n)
    %d = convolution(%s, %w) {stride = [1, 1], padding_before = [0, 0], padding_after = [0, 0], dilation = [1, 1], groups = 1, layout = "nchw"}
    return %d as "y", %r as "r"
  })";
  auto optimise = [&] {
    ir::Graph graph = ir::parse_graph(kModel);
    PassContext context;
    run_pipeline(graph, context, {.verify = true});
    return ir::to_text(graph);
  };
  const std::string first = optimise();
  EXPECT_NE(first.find("layout = \"nhwc\""), std::string::npos);
  EXPECT_EQ(first.find("batch_norm("), std::string::npos);
  for (int i = 0; i < 3; ++i) EXPECT_EQ(optimise(), first);
}

TEST(RunnerTest, TheTableIsAlphabetical) {
  const auto passes = all_passes();
  for (size_t i = 1; i < passes.size(); ++i) EXPECT_LT(passes[i - 1].name, passes[i].name);
}

}  // namespace
}  // namespace kiln::passes
