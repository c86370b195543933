// What the suite asks of a backend. One joins by adding a file like cpu_backends.cpp.
#pragma once

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

// A case that a backend does not pass yet, and why.
struct Gap {
  std::string test;
  std::string reason;
};

struct Backend {
  std::string name;
  // Why it cannot run on this machine; empty if it can.
  std::function<std::string()> unavailable;
  std::function<Runner(ir::Graph graph)> compile;
  std::vector<Gap> gaps;
};

inline std::ostream& operator<<(std::ostream& out, const Backend& backend) {
  return out << backend.name;
}

std::vector<Backend> cpu_backends();

}  // namespace kiln::conformance
