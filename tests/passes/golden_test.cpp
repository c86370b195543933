// Golden tests of the passes: every tests/passes/<pass>/*.txt (helpers/golden.h).
//
// The passes run in order, with the verifier after each. Where the reference interpreter can run
// the graph, it must compute the same before and after, so that an expectation that was regenerated
// without being read cannot hide a wrong result.
#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <optional>
#include <sstream>

#include "backends/reference/reference.h"
#include "helpers/golden.h"
#include "helpers/random_values.h"
#include "ir/text.h"
#include "ir/verify.h"
#include "passes/pass.h"
#include "passes/quantisation.h"

namespace kiln::passes {
namespace {

namespace fs = std::filesystem;

std::vector<ir::Literal> evaluate(const ir::Node& node,
                                  std::span<const ir::Literal* const> inputs) {
  return reference::evaluate(node, inputs, [](const ir::SymbolPtr& s) { return s->opt; });
}

// "quantise_layers int8-weights exclude=c": of weights alone without groups, of 4 bits with groups of 8. Inputs of
// int8 are in [-2, 2], as random inputs are, and those of later layers are taken to be.
std::optional<Quantisation> quantisation_of(const std::string& name, const ir::Graph& graph) {
  std::istringstream words(name);
  std::string pass, scheme, more;
  words >> pass >> scheme >> more;
  if (scheme.empty()) return std::nullopt;
  Quantisation result;
  for (const auto each : {Quantisation::Scheme::Int8, Quantisation::Scheme::Int8Weights,
                          Quantisation::Scheme::Int4Weights})
    if (scheme == scheme_name(each)) result.scheme = each;
  if (result.scheme == Quantisation::Scheme::Int4Weights) result.group_size = 8;
  if (more.starts_with("exclude=")) result.exclude = more.substr(8);
  if (result.scheme != Quantisation::Scheme::Int8) return result;
  for (const QuantisableLayer& layer : quantisable_layers(graph, result)) {
    const ir::Shape& shape = layer.input()->type.shape;
    const auto channels = static_cast<size_t>(shape[layer.channel_axis()].constant());
    result.inputs[layer.name()] = {InputScale({-2, 2}), std::vector<double>(channels, 0.25),
                                   std::vector<double>(channels, 0.25)};
  }
  return result;
}

// What was rounded to 8 bits differs by a step or so.
void expect_close(const ir::Literal& got, const ir::Literal& expected, double tolerance) {
  ASSERT_EQ(got.dtype, expected.dtype);
  ASSERT_EQ(got.shape, expected.shape);
  for (int64_t i = 0; i < got.elements(); ++i) {
    const double a = got.as_double(i), b = expected.as_double(i);
    if (a == b || (std::isnan(a) && std::isnan(b))) continue;  // infinities too
    ASSERT_LE(std::abs(a - b), tolerance * (1 + std::abs(b))) << "element " << i;
  }
}

void expect_same_results(const ir::Graph& before, const ir::Graph& after, double tolerance) {
  const std::vector<ir::Literal> inputs =
      test::random_inputs(before, {.low = -2, .high = 2, .integers = 2},
                          [](const ir::SymbolPtr& symbol) { return symbol->opt; });
  const auto expected = reference::run(before, inputs), got = reference::run(after, inputs);
  ASSERT_EQ(got.size(), expected.size());
  for (size_t i = 0; i < got.size(); ++i) {
    SCOPED_TRACE("output " + before.output_names()[i]);
    expect_close(got[i], expected[i], tolerance);
  }
}

std::string run_passes(const std::vector<std::string>& names, const std::string& input) {
  ir::Graph graph = ir::parse_graph(input);
  ir::verify(graph);
  PassContext context{evaluate};
  double tolerance = 1e-5;
  const auto has_word = [](const std::string& name, const std::string& word) {
    return name.find(' ' + word) != std::string::npos;
  };
  for (const std::string& name : names) {
    const PassInfo* pass = find_pass(name.substr(0, name.find(' ')));
    if (pass == nullptr) {
      ADD_FAILURE() << "no pass " << name;
      return {};
    }
    const std::string before = ir::to_text(graph, {.max_literal_elements = 1 << 20});
    // "fold_batch_norm rounds-less": in 16 bits, where it leaves out roundings; "fold_batch_norm emulates": it may not.
    const bool rounds_less = has_word(name, "rounds-less");
    context.emulate_precision_casts = has_word(name, "emulates");
    const bool is_plain = rounds_less || context.emulate_precision_casts;
    if (rounds_less) tolerance = 0.02;
    const auto quantisation = is_plain ? std::nullopt : quantisation_of(name, graph);
    context.quantisation = quantisation ? &*quantisation : nullptr;
    if (quantisation) tolerance = 0.05;
    const bool changed = pass->run(graph, context);
    ir::verify(graph);
    const std::string after = ir::to_text(graph, {.max_literal_elements = 1 << 20});
    EXPECT_EQ(changed, before != after) << name << " must say whether it changed the graph";
  }
  expect_same_results(ir::parse_graph(input), graph, tolerance);
  return ir::to_text(graph);
}

class GoldenTest : public testing::TestWithParam<std::string> {};

TEST_P(GoldenTest, GivesTheExpectedGraph) { test::expect_golden(GetParam(), run_passes); }

INSTANTIATE_TEST_SUITE_P(Passes, GoldenTest, testing::ValuesIn(test::golden_files(KILN_TEST_DATA)),
                         test::golden_name);

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
