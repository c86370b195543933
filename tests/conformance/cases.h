// The cases of the conformance suite: small graphs in tests/conformance/*.ir, one or more for every
// op of ops.def.
//
//   // case NAME for DTYPE ... [values LOW HIGH] [integers LIMIT]
//   graph main(%x: $T[s, 7]) symbols s in [1, 40] opt 17 { ... }
//
// $T stands for each of the dtypes in turn. Inputs whose name begins with "w" become constants.
// Floating inputs are random in [LOW, HIGH), integers in [0, LIMIT). Each case runs with its size
// symbols at their minimum and at their opt.
#pragma once

#include <ostream>
#include <string>
#include <vector>

#include "ir/graph.h"

namespace kiln::conformance {

struct Case {
  std::string name;  // "add_f32"
  std::string text;
  DType dtype = DType::F32;
  double low = -2, high = 2;
  int64_t limit = 4;
};

inline std::ostream& operator<<(std::ostream& out, const Case& test) { return out << test.name; }

// All cases of all files, in order of file name. Throws std::runtime_error for a malformed one.
std::vector<Case> all_cases();
// Those of which no size and no number of steps depends on data: runs on GPUs wait for neither.
std::vector<Case> cases_for_gpus();
// The names of the cases in checks_test.cpp.
std::vector<std::string> check_case_names();

enum class Sizes { Min, Opt };
ir::Graph make_graph(const Case& test);
std::vector<ir::Literal> make_inputs(const Case& test, const ir::Graph& graph, Sizes sizes);

}  // namespace kiln::conformance
