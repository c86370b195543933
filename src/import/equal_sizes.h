// Sizes of inputs that have names of their own in a model, and that one of its operators needs to be equal. They become
// one size of the graph: an engine compares the sizes of its inputs at every call, so that the condition is checked there.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "import/scope.h"
#include "ir/unequal_sizes.h"

namespace kiln::import {

class EqualSizes {
 public:
  // Whether the error is about two symbols, or a symbol and a number, that are not in here yet.
  bool can_add(const CompileError& error) const;
  void add(const ir::UnequalSizes& error);
  // The symbols with one size in place of those that have to be equal, in the range that they share.
  void apply(Symbols& symbols) const;

 private:
  std::vector<std::pair<ir::Dim, ir::Dim>>
      pairs_;  // symbols of earlier imports, which count by their names
};

// Imports again as often as an operator needs two more sizes to be equal.
template <typename Import>
auto with_equal_sizes(const Import& import) {
  for (EqualSizes equal;;) {
    try {
      return import(std::as_const(equal));
    } catch (const ir::UnequalSizes& error) {
      if (!equal.can_add(error)) throw;
      equal.add(error);
    }
  }
}

}  // namespace kiln::import
