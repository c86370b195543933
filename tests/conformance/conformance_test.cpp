// Every backend against the reference interpreter, on every case.
#include <gtest/gtest.h>

#include <set>

#include "backends/reference/reference.h"
#include "conformance/backend.h"
#include "conformance/cases.h"
#include "conformance/compare.h"
#include "ir/op_table.h"

namespace kiln::conformance {
namespace {

// What is wrong with a backend's results for a case; empty if nothing is.
std::string problem(const Backend& backend, const Case& test) {
  try {
    const ir::Graph graph = make_graph(test);
    const Runner run = backend.compile(make_graph(test));
    for (Sizes sizes : {Sizes::Opt, Sizes::Min}) {
      const std::vector<ir::Literal> inputs = make_inputs(test, graph, sizes);
      const std::vector<ir::Literal> expected = reference::run(graph, inputs);
      const std::vector<ir::Literal> got = run(inputs);
      if (got.size() != expected.size()) return "the number of results differs";
      for (size_t i = 0; i < got.size(); ++i) {
        const std::string differs = difference(got[i], expected[i]);
        if (!differs.empty()) return "output " + std::to_string(i) + ": " + differs;
      }
    }
  } catch (const std::exception& error) {
    return error.what();
  }
  return "";
}

class Conformance : public testing::TestWithParam<std::tuple<Backend, Case>> {};

TEST_P(Conformance, MatchesReference) {
  const auto& [backend, test] = GetParam();
  if (const std::string reason = backend.unavailable(); !reason.empty()) GTEST_SKIP() << reason;
  const std::string wrong = problem(backend, test);
  const Gap* gap = backend.gap(test.name);
  if (gap == nullptr) {
    EXPECT_EQ(wrong, "");
    return;
  }
  EXPECT_NE(wrong, "") << "it passes: take it out of the gaps of " << backend.name;
  if (!wrong.empty()) GTEST_SKIP() << gap->reason << " (" << wrong << ")";
}

INSTANTIATE_TEST_SUITE_P(All, Conformance,
                         testing::Combine(testing::ValuesIn(all_backends()),
                                          testing::ValuesIn(all_cases())),
                         [](const testing::TestParamInfo<std::tuple<Backend, Case>>& info) {
                           return test_name(std::get<0>(info.param).name + "_" +
                                            std::get<1>(info.param).name);
                         });

TEST(Gaps, AreCasesWithReasons) {
  std::set<std::string> cases;
  for (const Case& test : all_cases()) cases.insert(test.name);
  for (const std::string& name : check_case_names()) cases.insert("check_" + name);
  for (const Backend& backend : all_backends()) {
    std::set<std::string> listed;
    for (const Gap& gap : backend.gaps) {
      EXPECT_TRUE(cases.contains(gap.test)) << backend.name << ": there is no case " << gap.test;
      EXPECT_TRUE(listed.insert(gap.test).second)
          << backend.name << " lists " << gap.test << " twice";
      EXPECT_FALSE(gap.reason.empty()) << backend.name << ": " << gap.test;
    }
  }
}

// A suite that passes whatever it is given would be of no use.
TEST(Tolerance, SeesDifferencesBeyondIt) {
  for (const DType dtype : {DType::F64, DType::F32, DType::F16, DType::BF16}) {
    EXPECT_GT(tolerance(dtype), 0);
    std::byte *a = nullptr, *b = nullptr;
    const ir::Literal one = ir::Literal::allocate(dtype, {1}, &a);
    const ir::Literal other = ir::Literal::allocate(dtype, {1}, &b);
    ir::Literal::set(a, dtype, 0, 1.0);
    ir::Literal::set(b, dtype, 0, 1.0);
    EXPECT_EQ(difference(one, other), "");
    ir::Literal::set(b, dtype, 0, 1.0 + 4 * tolerance(dtype));
    EXPECT_NE(difference(one, other), "");
  }
}

TEST(Cases, CoverEveryOp) {
  std::vector<bool> covered(ir::op_count());
  for (const Case& test : all_cases()) {
    const ir::Graph graph = make_graph(test);
    for (const auto& node : graph.nodes()) covered[static_cast<size_t>(node->op)] = true;
  }
  // Its kernel is not Kiln's: tests/capi/custom_kernels_test.cpp.
  covered[static_cast<size_t>(ir::Op::custom)] = true;
  for (size_t i = 0; i < covered.size(); ++i) {
    EXPECT_TRUE(covered[i]) << ir::op_name(static_cast<ir::Op>(i)) << " is in no case";
  }
}

}  // namespace
}  // namespace kiln::conformance
