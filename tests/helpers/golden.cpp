#include "helpers/golden.h"

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <string_view>

namespace kiln::test {
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

}  // namespace

std::vector<std::string> golden_files(const std::string& folder) {
  std::vector<std::string> files;
  for (const auto& entry : fs::recursive_directory_iterator(folder)) {
    const fs::path& path = entry.path();
    if (path.extension() == ".txt" && path.parent_path() != folder) files.push_back(path.string());
  }
  std::sort(files.begin(), files.end());
  return files;
}

std::string golden_name(const testing::TestParamInfo<std::string>& info) {
  const fs::path path = info.param;
  return path.parent_path().filename().string() + "_" + path.stem().string();
}

void expect_golden(const std::string& path, const RunPasses& run_passes) {
  std::stringstream content;
  content << std::ifstream(path).rdbuf();
  const std::string text = content.str();
  ASSERT_TRUE(text.starts_with(kRun)) << "the first line names the passes";
  const std::string run = text.substr(kRun.size(), text.find('\n') - kRun.size());
  const bool regenerate = std::getenv("KILN_REGENERATE") != nullptr;
  std::string regenerated;
  for (const std::string& part : split(text, kRule)) {
    const std::vector<std::string> sides = split(part, kArrow);
    SCOPED_TRACE(sides[0]);
    const std::string got = run_passes(split(run, ", "), sides[0]);
    if (!regenerate) {
      ASSERT_EQ(sides.size(), 2u) << "a case has an input, // => and an expectation";
      EXPECT_EQ(got, sides[1]);
    }
    if (!regenerated.empty()) regenerated += kRule;
    regenerated += sides[0] + std::string(kArrow) + got;
  }
  if (regenerate) std::ofstream(path) << regenerated;
}

}  // namespace kiln::test
