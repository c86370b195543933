#include "plan/compare.h"

#include <gtest/gtest.h>

#include <cmath>

#include "backends/reference/reference.h"
#include "helpers/random_values.h"
#include "plan/passes/pass.h"

namespace kiln::plan {
namespace {

test::Values values_of(const Case& options) { return {.integers = options.integer_limit}; }

test::SizeOf size_of(const Case& options) {
  return [&options](const ir::SymbolPtr& symbol) {
    const auto it = options.sizes.find(symbol->name);
    return it == options.sizes.end() ? symbol->opt : it->second;
  };
}

// Equal, both NaN, or close relative to the larger of 1 and their size.
bool close(double a, double b, double tolerance) {
  if (std::isnan(a) || std::isnan(b)) return std::isnan(a) && std::isnan(b);
  return a == b || std::fabs(a - b) <= tolerance * std::max(1.0, std::fabs(b));
}

void expect_close(const ir::Literal& got, const ir::Literal& expected, const Case& options,
                  const std::string& what) {
  ASSERT_EQ(got.dtype, expected.dtype) << what;
  ASSERT_EQ(got.shape, expected.shape) << what;
  for (int64_t i = 0; i < got.elements(); ++i) {
    ASSERT_TRUE(close(got.as_double(i), expected.as_double(i), options.tolerance))
        << what << ", element " << i << ": got " << got.as_double(i) << ", expected "
        << expected.as_double(i);
  }
}

void expect_runs_like(const Program& program, const std::vector<ir::Literal>& inputs,
                      const std::vector<ir::Literal>& expected, const Case& options,
                      const std::string& what) {
  const std::vector<ir::Literal> outputs = interpret(program, inputs);
  ASSERT_EQ(outputs.size(), expected.size()) << what;
  for (size_t i = 0; i < outputs.size(); ++i) {
    expect_close(outputs[i], expected[i], options,
                 what + " output " + std::to_string(i) + "\n" + to_text(program));
  }
}

}  // namespace

const TargetTraits& test_traits() {
  static const std::vector<DType> kContracted = {DType::F32, DType::F16, DType::BF16};
  static const TargetTraits kTraits = {
      .matmul = kContracted,
      .convolution = kContracted,
      .attention = kContracted,
      .places = true,
      .data_sizes = true,
      .calls = true,
      .integer_products = true,
      .integer_convolutions = true,
      .integer_windows = true,
      .folds_scales = true,
      .integer_weights = true,
      .float8_products = true,
      .float8_weight_rows = 1,
      .min_group_channels = 4,
      .winograd = WinogradCosts{.pixel = 1, .result = 1, .weight = 1, .fewest_rows = 1},
      .loops_in_memory_order = true,
      .results_in_rows = true,
      .paired_products = true,
      .pooled_convolutions =
          PooledConvolutions{.channels = 4, .kernel = 7, .stride = 2, .window = 3, .vector = 8},
      .second_sums = SecondSums{.vector = 8,
                                .fewest_filters = 16,
                                .fewest_pixels = 33,
                                .most_pixels = 2147483647,
                                .stride = 2,
                                .reach = 255,
                                .corner = 128},
      .epilogue = EpilogueRule::EvenLoads,
      .root_cost = 4,
      .division_cost = 4,
      .series_cost = 10,
      .iterated_cost = 20,
      .round_trip_cost = 8,
      .near_load_cost = 5,
      .byte_table_cost = 16,
      .position_cost = 6,
      .max_operations = 64,
      .max_loads = 12,
      .min_parallel_points = 64,
      .large_task_points = 4096,
      .long_reduction = 8192,
      .few_reductions = 64,
      .joined_points = 4096,
  };
  return kTraits;
}

const std::vector<TargetTraits>& other_traits() {
  static const std::vector<TargetTraits> kTraits = [] {
    TargetTraits plain = test_traits();
    plain.matmul = plain.convolution = plain.attention = {DType::F32};
    plain.min_group_channels = 16;
    plain.integer_products = plain.integer_convolutions = plain.integer_weights = false;
    plain.integer_windows = plain.folds_scales = false;
    plain.float8_products = false;
    plain.float8_weight_rows = 0;
    plain.epilogue = EpilogueRule::OwnBias;
    plain.max_operations = 8;
    plain.max_loads = 3;
    TargetTraits eager = test_traits();
    eager.min_group_channels = 1;
    eager.max_patch_channels = 1000;
    eager.epilogue = EpilogueRule::AnyLoads;
    eager.round_trip_cost = eager.near_load_cost = eager.position_cost = 1000;
    eager.max_operations = eager.max_loads = 1000;
    eager.min_parallel_points = eager.large_task_points = eager.few_reductions = 0;
    return std::vector<TargetTraits>{TargetTraits{.places = true, .data_sizes = true}, plain,
                                     eager};
  }();
  return kTraits;
}

ir::Graph make_graph(const std::string& text, const Case& options) {
  return test::graph_with_constants(text, values_of(options), size_of(options));
}

std::vector<ir::Literal> make_inputs(const ir::Graph& graph, const Case& options) {
  return test::random_inputs(graph, values_of(options), size_of(options));
}

Program expect_same_as_reference(const std::string& text, const Case& options) {
  return expect_same_as_reference(make_graph(text, options), options);
}

Program expect_same_as_reference(const ir::Graph& graph, const Case& options) {
  const std::vector<ir::Literal> inputs = make_inputs(graph, options);
  const std::vector<ir::Literal> expected = reference::run(graph, inputs);
  Program program = lower(graph, options.traits);
  verify(program);
  expect_runs_like(program, inputs, expected, options, "lowered");
  run_pipeline(program, {.disabled = {}, .verify = true, .dump_directory = {}});
  expect_runs_like(program, inputs, expected, options, "fused");
  return program;
}

void expect_same_as_reference(const Program& program, const ir::Graph& graph, const Case& options) {
  const std::vector<ir::Literal> inputs = make_inputs(graph, options);
  expect_runs_like(program, inputs, reference::run(graph, inputs), options, program.name);
}

Program lowered(const std::string& text) { return lower(make_graph(text), test_traits()); }

std::string kernels_text(const Program& program) {
  const std::string text = to_text(program);
  const size_t first = text.find("kernel ");
  return first == std::string::npos ? "" : text.substr(first);
}

}  // namespace kiln::plan
