// What the suite asks of a backend. One joins by adding a file like stub_backend.cpp, and a line to
// all_backends().
#pragma once

#include <algorithm>
#include <functional>
#include <memory>
#include <ostream>
#include <span>
#include <sstream>
#include <string>
#include <vector>

#include "ir/graph.h"

namespace kiln::conformance {

// A compiled graph, run as often as wanted.
using Runner = std::function<std::vector<ir::Literal>(std::span<const ir::Literal> inputs)>;

// A case that a backend does not pass yet, and why. It is tried all the same: one that passes, or
// that is no case any more, fails the suite.
struct Gap {
  std::string
      test;  // the name of a case ("add_f16"), or "check_" and that of a case of checks_test
  std::string reason;
};

// A reason, and the cases that it stops.
struct Gaps {
  const char* reason;
  const char* tests;  // separated by spaces
};

inline void add_gaps(const Gaps& gaps, std::vector<Gap>& to) {
  std::istringstream tests(gaps.tests);
  for (std::string test; tests >> test;) to.push_back({test, gaps.reason});
}

// Of targets whose runs are launched as a whole.
inline constexpr Gaps kGapsOfRuns[] = {
    {"a run does not wait for a size that it finds",
     "data_size_select_f32 data_size_select_f16 data_size_select_i64 data_size_none_f32 "
     "data_size_all_f32 data_size_products_f32 data_size_products_bf16 "
     "data_size_products_f64 data_size_moves_f32 data_size_moves_i64 "
     "data_size_attention_f32 data_size_two_f32 data_size_chain_f32 data_size_chain_i64 "
     "data_size_state_f32 data_size_item_i64 data_size_item_i32 data_size_alone_f32 "
     "data_size_sorted_f32 "
     "data_size_masked_f32 data_size_masked_u8"},
    {"a run does not look at a condition that it finds",
     "repeat_count_f32 repeat_count_f64 repeat_count_f16 repeat_count_bf16 "
     "repeat_count_i32 repeat_count_i64 repeat_never_f32 repeat_swaps_f32 "
     "repeat_swaps_i64 repeat_rows_f32 repeat_rows_f16 repeat_rows_i8 repeat_rows_bool "
     "repeat_nested_f32 repeat_matmul_f32 repeat_matmul_f16 repeat_matmul_bf16 "
     "repeat_matmul_f64 repeat_of_found_size_f32 repeat_of_views_f32 repeat_of_views_i64 "
     "repeat_updates_f32 repeat_updates_i64 "
     "repeat_convolution_f32"}};

struct Backend {
  std::string name;
  // Why it cannot run on this machine; empty if it can.
  std::function<std::string()> unavailable;
  std::function<Runner(ir::Graph graph)> compile;
  std::vector<Gap> gaps;

  // Null for a test that it has to pass.
  const Gap* gap(const std::string& test) const {
    const auto found = std::ranges::find(gaps, test, &Gap::test);
    return found == gaps.end() ? nullptr : &*found;
  }
};

inline std::ostream& operator<<(std::ostream& out, const Backend& backend) {
  return out << backend.name;
}

std::vector<Backend> cpu_backends();
std::vector<Backend> cuda_backends();
std::vector<Backend> stub_backends();
std::vector<Backend> all_backends();

// A name for a parameter of a test: letters, digits and underscores.
std::string test_name(std::string name);

}  // namespace kiln::conformance
