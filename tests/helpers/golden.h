// Golden tests of passes: every <folder>/<pass>/*.txt.
//
//   // RUN: canonicalise, eliminate_dead_code
//   // what the case shows
//   graph main(...) { ... }
//   // =>
//   what the passes make of it
//   // ----
//   the next case
//
// KILN_REGENERATE=1 rewrites the expectations.
#pragma once

#include <gtest/gtest.h>

#include <functional>
#include <string>
#include <vector>

namespace kiln::test {

// The golden files below a folder, sorted.
std::vector<std::string> golden_files(const std::string& folder);
// "canonicalise_moves" for .../canonicalise/moves.txt.
std::string golden_name(const testing::TestParamInfo<std::string>& info);

// Runs the passes of that name, in order, on the text of a graph; gives the text of the result.
using RunPasses =
    std::function<std::string(const std::vector<std::string>& names, const std::string& input)>;
// Expects for each case of a file that the passes give what it says.
void expect_golden(const std::string& path, const RunPasses& run_passes);

}  // namespace kiln::test
