// What the suite asks of a backend. One joins by adding a file like stub_backend.cpp, and a line to
// all_backends().
#pragma once

#include <algorithm>
#include <functional>
#include <memory>
#include <ostream>
#include <span>
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
