// Golden tests of the passes over programs: every tests/plan/<pass>/*.txt.
//
//   // RUN: inline_pointwise, fuse_epilogues
//   // what the case shows
//   graph main(...) { ... }
//   // =>
//   program main
//   ...
//   // ----
//   the next case
//
// The graph is lowered (inputs named w... as constants), then the passes run in order, with the
// verifier after each. The program must compute what the reference interpreter computes.
// KILN_REGENERATE=1 rewrites the expectations.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "plan/compare.h"
#include "plan/pass.h"

namespace kiln::plan {
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

std::string run_passes(const std::vector<std::string>& names, const std::string& input) {
  const ir::Graph graph = make_graph(input);
  Program program = lower(graph);
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

TEST_P(GoldenTest, GivesTheExpectedProgram) {
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
    const fs::path& path = entry.path();
    if (path.extension() == ".txt" && path.parent_path() != KILN_TEST_DATA)
      files.push_back(path.string());
  }
  std::sort(files.begin(), files.end());
  return files;
}

std::string test_name(const testing::TestParamInfo<std::string>& info) {
  const fs::path path = info.param;
  return path.parent_path().filename().string() + "_" + path.stem().string();
}

INSTANTIATE_TEST_SUITE_P(Plan, GoldenTest, testing::ValuesIn(golden_files()), test_name);

TEST(GoldenCoverageTest, EveryPassHasACase) {
  for (const PassInfo& pass : all_passes()) {
    EXPECT_TRUE(fs::is_directory(fs::path(KILN_TEST_DATA) / pass.name)) << pass.name;
  }
}

}  // namespace
}  // namespace kiln::plan
