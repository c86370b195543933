// Golden tests of the passes: every tests/passes/<pass>/*.txt.
//
//   // RUN: canonicalise, eliminate_dead_code
//   // what the case shows
//   graph main(...) { ... }
//   // =>
//   graph main(...) { ... }
//   // ----
//   the next case
//
// The passes run in order, with the verifier after each. Where the reference interpreter can run
// the graph, it must compute the same before and after, so that an expectation that was regenerated
// without being read cannot hide a wrong result. KILN_REGENERATE=1 rewrites the expectations.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "backends/reference/reference.h"
#include "ir/text.h"
#include "ir/verify.h"
#include "passes/pass.h"

namespace kiln::passes {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kRun = "// RUN: ", kArrow = "// =>\n", kRule = "// ----\n";

std::vector<std::string> split(std::string_view text, std::string_view separator) {
  std::vector<std::string> parts;
  while (true) {
    const size_t end = text.find(separator);
    parts.emplace_back(text.substr(0, end));
    if (end == std::string_view::npos) return parts;
    text.remove_prefix(end + separator.size());
  }
}

std::vector<ir::Literal> evaluate(const ir::Node& node,
                                  std::span<const ir::Literal* const> inputs) {
  return reference::evaluate(node, inputs, [](const ir::SymbolPtr& s) { return s->opt; });
}

// Inputs with sizes at the opt of their range and values that differ from each other: a fixed
// sequence in (-2, 2).
std::vector<ir::Literal> make_inputs(const ir::Graph& graph) {
  std::vector<ir::Literal> inputs;
  uint32_t state = 1;
  for (const ir::Value* input : graph.inputs()) {
    std::vector<int64_t> shape;
    for (const ir::Dim& dim : input->type.shape) shape.push_back(dim.at_opt());
    std::byte* data = nullptr;
    inputs.push_back(ir::Literal::allocate(input->type.dtype, shape, &data));
    for (int64_t i = 0; i < inputs.back().elements(); ++i) {
      state = state * 1664525u + 1013904223u;
      const double value = (state >> 8) * 0x1p-22 - 2;
      const bool index = !is_floating(input->type.dtype);
      ir::Literal::set(data, input->type.dtype, i, index ? (state >> 16) % 2 : value);
    }
  }
  return inputs;
}

void expect_close(const ir::Literal& got, const ir::Literal& expected) {
  ASSERT_EQ(got.dtype, expected.dtype);
  ASSERT_EQ(got.shape, expected.shape);
  for (int64_t i = 0; i < got.elements(); ++i) {
    const double a = got.as_double(i), b = expected.as_double(i);
    if (std::isnan(a) && std::isnan(b)) continue;
    ASSERT_LE(std::abs(a - b), 1e-5 + 1e-5 * std::abs(b)) << "element " << i;
  }
}

void expect_same_results(const ir::Graph& before, const ir::Graph& after) {
  const std::vector<ir::Literal> inputs = make_inputs(before);
  const auto expected = reference::run(before, inputs), got = reference::run(after, inputs);
  ASSERT_EQ(got.size(), expected.size());
  for (size_t i = 0; i < got.size(); ++i) {
    SCOPED_TRACE("output " + before.output_names()[i]);
    expect_close(got[i], expected[i]);
  }
}

std::string run_passes(const std::vector<std::string>& names, const std::string& input) {
  ir::Graph graph = ir::parse_graph(input);
  ir::verify(graph);
  PassContext context{evaluate};
  for (const std::string& name : names) {
    const PassInfo* pass = find_pass(name);
    if (pass == nullptr) {
      ADD_FAILURE() << "no pass " << name;
      return {};
    }
    const std::string before = ir::to_text(graph, {.max_literal_elements = 1 << 20});
    const bool changed = pass->run(graph, context);
    ir::verify(graph);
    const std::string after = ir::to_text(graph, {.max_literal_elements = 1 << 20});
    EXPECT_EQ(changed, before != after) << name << " must say whether it changed the graph";
  }
  expect_same_results(ir::parse_graph(input), graph);
  return ir::to_text(graph);
}

class GoldenTest : public testing::TestWithParam<std::string> {};

TEST_P(GoldenTest, GivesTheExpectedGraph) {
  std::stringstream content;
  content << std::ifstream(GetParam()).rdbuf();
  const std::string text = content.str();
  ASSERT_TRUE(text.starts_with(kRun)) << "the first line names the passes";
  const std::string run = text.substr(kRun.size(), text.find('\n') - kRun.size());
  std::string regenerated;
  for (const std::string& part : split(text, kRule)) {
    const std::vector<std::string> sides = split(part, kArrow);
    SCOPED_TRACE(sides[0]);
    const std::string got = run_passes(split(run, ", "), sides[0]);
    if (std::getenv("KILN_REGENERATE") == nullptr) {
      ASSERT_EQ(sides.size(), 2u) << "a case has an input, // => and an expectation";
      EXPECT_EQ(got, sides[1]);
    }
    if (!regenerated.empty()) regenerated += kRule;
    regenerated += sides[0] + std::string(kArrow) + got;
  }
  if (std::getenv("KILN_REGENERATE") != nullptr) std::ofstream(GetParam()) << regenerated;
}

std::vector<std::string> golden_files() {
  std::vector<std::string> files;
  for (const auto& entry : fs::recursive_directory_iterator(KILN_TEST_DATA)) {
    if (entry.path().extension() == ".txt" && entry.path().parent_path() != KILN_TEST_DATA) {
      files.push_back(entry.path().string());
    }
  }
  std::sort(files.begin(), files.end());
  return files;
}

std::string test_name(const testing::TestParamInfo<std::string>& info) {
  const fs::path path = info.param;
  return path.parent_path().filename().string() + "_" + path.stem().string();
}

INSTANTIATE_TEST_SUITE_P(Passes, GoldenTest, testing::ValuesIn(golden_files()), test_name);

// Every pass has a golden test, and every folder of golden tests is a pass (or the whole
// pipeline's).
TEST(GoldenCoverageTest, EveryPassHasACase) {
  for (const PassInfo& pass : all_passes()) {
    EXPECT_TRUE(fs::is_directory(fs::path(KILN_TEST_DATA) / pass.name)) << pass.name;
  }
  for (const auto& entry : fs::directory_iterator(KILN_TEST_DATA)) {
    if (entry.is_directory()) {
      EXPECT_NE(find_pass(entry.path().filename().string()), nullptr) << entry.path();
    }
  }
}

}  // namespace
}  // namespace kiln::passes
