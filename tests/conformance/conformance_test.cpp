// Every backend against the reference interpreter, on every case.
#include <gtest/gtest.h>

#include <cmath>

#include "backends/reference/reference.h"
#include "conformance/backend.h"
#include "conformance/cases.h"
#include "ir/op_table.h"

namespace kiln::conformance {
namespace {

// Bound of |got - expected| relative to the norm of what is expected; integers are exact.
double tolerance(DType dtype) { return dtype == DType::F16 || dtype == DType::BF16 ? 1e-2 : 1e-5; }

bool both_nan(double a, double b) { return std::isnan(a) && std::isnan(b); }

void expect_close(const ir::Literal& got, const ir::Literal& expected, double bound) {
  ASSERT_EQ(got.dtype, expected.dtype);
  ASSERT_EQ(got.shape, expected.shape);
  double difference = 0, norm = 0;
  for (int64_t i = 0; i < got.elements(); ++i) {
    if (!is_floating(got.dtype)) {
      ASSERT_EQ(got.as_int(i), expected.as_int(i)) << "element " << i;
      continue;
    }
    const double a = got.as_double(i), b = expected.as_double(i);
    if (a == b || both_nan(a, b)) continue;
    ASSERT_TRUE(std::isfinite(a) && std::isfinite(b))
        << "element " << i << ": got " << a << ", expected " << b;
    difference += (a - b) * (a - b);
    norm += b * b;
  }
  EXPECT_LE(std::sqrt(difference), bound * std::sqrt(norm));
}

class Conformance : public testing::TestWithParam<std::tuple<Backend, Case>> {};

TEST_P(Conformance, MatchesReference) {
  const auto& [backend, test] = GetParam();
  if (const std::string reason = backend.unavailable(); !reason.empty()) GTEST_SKIP() << reason;
  for (const Gap& gap : backend.gaps) {
    if (gap.test == test.name) GTEST_SKIP() << gap.reason;
  }
  const ir::Graph graph = make_graph(test);
  const Runner run = backend.compile(make_graph(test));
  for (Sizes sizes : {Sizes::Opt, Sizes::Min}) {
    const std::vector<ir::Literal> inputs = make_inputs(test, graph, sizes);
    const std::vector<ir::Literal> expected = reference::run(graph, inputs);
    const std::vector<ir::Literal> got = run(inputs);
    ASSERT_EQ(got.size(), expected.size());
    for (size_t i = 0; i < got.size(); ++i)
      expect_close(got[i], expected[i], tolerance(test.dtype));
  }
}

std::string test_name(const testing::TestParamInfo<std::tuple<Backend, Case>>& info) {
  std::string name = std::get<0>(info.param).name + "_" + std::get<1>(info.param).name;
  for (char& c : name) c = std::isalnum(static_cast<unsigned char>(c)) ? c : '_';
  return name;
}

INSTANTIATE_TEST_SUITE_P(Cpu, Conformance,
                         testing::Combine(testing::ValuesIn(cpu_backends()),
                                          testing::ValuesIn(all_cases())),
                         test_name);

TEST(Cases, CoverEveryOp) {
  std::vector<bool> covered(ir::op_count());
  for (const Case& test : all_cases()) {
    const ir::Graph graph = make_graph(test);
    for (const auto& node : graph.nodes()) covered[static_cast<size_t>(node->op)] = true;
  }
  for (size_t i = 0; i < covered.size(); ++i) {
    EXPECT_TRUE(covered[i]) << ir::op_name(static_cast<ir::Op>(i)) << " is in no case";
  }
}

}  // namespace
}  // namespace kiln::conformance
