// Golden tests of the passes over programs: every tests/plan/<pass>/*.txt (helpers/golden.h).
//
// The graph is lowered for test_traits() (inputs named w... as constants), then the passes run in order, with the
// verifier after each. The program must compute what the reference interpreter computes.
#include <gtest/gtest.h>

#include <filesystem>

#include "helpers/golden.h"
#include "plan/compare.h"
#include "plan/passes/pass.h"

namespace kiln::plan {
namespace {

namespace fs = std::filesystem;

std::string run_passes(const std::vector<std::string>& names, const std::string& input) {
  const ir::Graph graph = make_graph(input);
  Program program = lower(graph, test_traits());
  verify(program);
  for (const std::string& name : names) {
    const PassInfo* pass = find_pass(name);
    if (pass == nullptr) {
      ADD_FAILURE() << "no pass " << name;
      return {};
    }
    const std::string before = to_text(program);
    const bool changed = pass->run(program);
    verify(program);
    EXPECT_EQ(changed, before != to_text(program))
        << name << " must say whether it changed the program";
  }
  expect_same_as_reference(program, graph);
  return to_text(program);
}

class GoldenTest : public testing::TestWithParam<std::string> {};

TEST_P(GoldenTest, GivesTheExpectedProgram) { test::expect_golden(GetParam(), run_passes); }

INSTANTIATE_TEST_SUITE_P(Plan, GoldenTest, testing::ValuesIn(test::golden_files(KILN_TEST_DATA)),
                         test::golden_name);

TEST(GoldenCoverageTest, EveryPassHasACase) {
  for (const PassInfo& pass : all_passes()) {
    EXPECT_TRUE(fs::is_directory(fs::path(KILN_TEST_DATA) / pass.name)) << pass.name;
  }
}

}  // namespace
}  // namespace kiln::plan
