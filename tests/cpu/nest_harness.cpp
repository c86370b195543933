#include "cpu/nest_harness.h"

#include <cmath>

#include "plan/passes/pass.h"

namespace kiln::test {

namespace {

bool close(double actual, double expected, double tolerance) {
  if (std::isnan(actual) || std::isnan(expected)) return std::isnan(actual) && std::isnan(expected);
  return actual == expected ||
         std::fabs(actual - expected) <= tolerance * std::max(1.0, std::fabs(expected));
}

void expect_close(const ir::Literal& actual, const ir::Literal& expected, double tolerance) {
  ASSERT_EQ(actual.dtype, expected.dtype);
  ASSERT_EQ(actual.shape, expected.shape);
  const bool floating = is_floating(actual.dtype);
  for (int64_t i = 0; i < actual.elements(); ++i) {
    const bool same = floating ? close(actual.as_double(i), expected.as_double(i), tolerance)
                               : actual.as_int(i) == expected.as_int(i);
    ASSERT_TRUE(same) << "element " << i << ": got " << actual.as_double(i) << ", expected "
                      << expected.as_double(i);
  }
}

}  // namespace

std::string graph_text(const std::string& inputs, const std::string& body,
                       const std::string& result) {
  return "graph main(" + inputs + ") symbols s0 in [1, 70] opt 37, s1 in [1, 2000] opt 100 {\n" +
         body + "\n  return " + result + "\n}\n";
}

void expect_compiled(const std::string& text, const plan::Case& options) {
  SCOPED_TRACE(text);
  const ir::Graph graph = plan::make_graph(text, options);
  const std::vector<ir::Literal> inputs = plan::make_inputs(graph, options);
  plan::Program program = plan::lower(graph, cpu_backend().traits);
  expect_compiled(program, inputs, options.tolerance);
  plan::run_pipeline(program, {.disabled = {}, .verify = true, .dump_directory = {}});
  expect_compiled(program, inputs, options.tolerance);
}

void expect_compiled(const plan::Program& program, const std::vector<ir::Literal>& inputs,
                     double tolerance) {
  SCOPED_TRACE(plan::to_text(program));
  const std::vector<ir::Literal> expected = plan::interpret(program, inputs);
  for (const std::string& variant : runnable_variants()) {
    SCOPED_TRACE(variant);
    const std::vector<ir::Literal> actual = run_variant(program, variant, inputs);
    ASSERT_EQ(actual.size(), expected.size());
    for (size_t i = 0; i < actual.size(); ++i) expect_close(actual[i], expected[i], tolerance);
  }
}

}  // namespace kiln::test
