#include "plan/compare.h"

#include <gtest/gtest.h>

#include <cmath>
#include <random>

#include "backends/reference/reference.h"
#include "ir/builder.h"
#include "ir/text.h"

namespace kiln::plan {
namespace {

int64_t size_of(const ir::SymbolPtr& symbol, const Case& options) {
  const auto it = options.sizes.find(symbol->name);
  return it == options.sizes.end() ? symbol->opt : it->second;
}

ir::Literal random_literal(const ir::Type& type, const Case& options, std::mt19937& random) {
  std::vector<int64_t> shape;
  for (const ir::Dim& dim : type.shape) {
    shape.push_back(
        dim.evaluate([&](const ir::SymbolPtr& symbol) { return size_of(symbol, options); }));
  }
  std::byte* data = nullptr;
  ir::Literal literal = ir::Literal::allocate(type.dtype, shape, &data);
  std::uniform_real_distribution<double> real(-1, 1);
  std::uniform_int_distribution<int64_t> whole(
      0, type.dtype == DType::Bool ? 1 : options.integer_limit - 1);
  for (int64_t i = 0; i < literal.elements(); ++i) {
    const bool floating = is_floating(type.dtype);
    ir::Literal::set(data, type.dtype, i,
                     floating ? real(random) : static_cast<double>(whole(random)));
  }
  return literal;
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

ir::Graph make_graph(const std::string& text, const Case& options) {
  ir::Graph graph = ir::parse_graph(text);
  std::mt19937 random(7);
  ir::Node* first = graph.nodes().empty() ? nullptr : graph.nodes().front().get();
  for (ir::Value* input : graph.inputs()) {
    if (!input->name.starts_with("w")) continue;
    graph.replace_all_uses(
        input, ir::Builder(graph, first).constant(random_literal(input->type, options, random)));
  }
  return graph;
}

std::vector<ir::Literal> make_inputs(const ir::Graph& graph, const Case& options) {
  std::mt19937 random(1);
  std::vector<ir::Literal> inputs;
  for (const ir::Value* input : graph.inputs())
    inputs.push_back(random_literal(input->type, options, random));
  return inputs;
}

Program expect_same_as_reference(const std::string& text, const Case& options) {
  return expect_same_as_reference(make_graph(text, options), options);
}

Program expect_same_as_reference(const ir::Graph& graph, const Case& options) {
  const std::vector<ir::Literal> inputs = make_inputs(graph, options);
  const std::vector<ir::Literal> expected = reference::run(graph, inputs);
  Program program = lower(graph);
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

Program lowered(const std::string& text) { return lower(make_graph(text)); }

std::string kernels_text(const Program& program) {
  const std::string text = to_text(program);
  const size_t first = text.find("kernel ");
  return first == std::string::npos ? "" : text.substr(first);
}

}  // namespace kiln::plan
