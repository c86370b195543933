// Integer and bool tensors whose elements are functions of their position: iota + 1, i <= j, the
// zeros of a mask that only looks computed. Exported language models build their masks from long
// chains of these.
#pragma once

#include <map>
#include <optional>

#include "ir/graph.h"

namespace kiln::passes {

// The element at [index...] of an integer tensor is `value`; of a bool tensor it is value != 0, or
// value >= 0 if `margin`.
struct IndexFunction {
  std::vector<ir::Dim> index;  // a loop symbol for each axis, 0 for axes of size 1
  ir::Dim value;
  bool margin = false;

  // The value at another position.
  ir::Dim at(const std::vector<ir::Dim>& position) const;
};

class IndexFunctions {
 public:
  // Called for each node in graph order; finds the function of its output, if there is one.
  void analyse(const ir::Node& node);
  const IndexFunction* find(const ir::Value* value) const;
  // A new value that equals an old one.
  void share(const ir::Value* from, const ir::Value* to);

 private:
  std::map<const ir::Value*, IndexFunction> functions_;
};

}  // namespace kiln::passes
