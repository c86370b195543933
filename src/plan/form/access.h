// Index arithmetic shared by lowering and the passes: offsets, loops over shapes, and maps between
// index spaces.
#pragma once

#include <functional>
#include <optional>
#include <vector>

#include "plan/form/program.h"

namespace kiln::plan {

using Indices = std::vector<Index>;

// Elements between neighbours along each axis of a dense row-major tensor.
std::vector<ir::Dim> dense_strides(const ir::Shape& shape);
// Element offset of a position in a dense row-major tensor.
Index linearize(const ir::Shape& shape, const Indices& indices);
// The position of the element `offset` of a dense row-major tensor.
Indices delinearize(const ir::Shape& shape, const Index& offset);
// Where element `indices` of a tensor reshaped to `to` lies in the original of shape `from`.
Indices reshape_indices(const ir::Shape& from, const ir::Shape& to, const Indices& indices);

Loop make_loop(const char* name, ir::Dim extent);
// The loops with others inside them.
std::vector<Loop> with_loops(std::vector<Loop> loops, const std::vector<Loop>& inner);

// Loops over a shape, and the position at their current iteration: axes of size 1 need no loop and
// have index 0.
struct LoopSpace {
  std::vector<Loop> loops;
  Indices indices;
};
LoopSpace make_loops(const ir::Shape& shape, const char* prefix = "i");

// Offset as base + sum(strides[i] * loops[i]), if it is affine in all of them and their strides do
// not mention them.
struct Affine {
  ir::Dim base;
  std::vector<ir::Dim> strides;
};
std::optional<Affine> as_affine(const Index& offset, const std::vector<Loop>& loops);

// Replacement of loop indices, for Dim::substitute and plan::substitute.
using IndexMap = std::function<std::optional<Index>(const ir::SymbolPtr&)>;
IndexMap replace_loops(const std::vector<Loop>& loops, const Indices& values);
Indices substitute(const Indices& indices, const IndexMap& map);

// Loops split in two wherever one of `indices` divides them by part of their extent, so that no
// division is left: x[i / 32, i % 32] with i < 384 becomes x[i0, i1]. `values` are the original
// loops in terms of the new ones.
struct RefinedLoops {
  std::vector<Loop> loops;
  Indices values;
};
RefinedLoops refine_loops(const std::vector<Loop>& loops, const Indices& indices);

// A bijection from the points of `loops` onto offsets [0, elements): what copies, reshapes and
// permutes of a whole buffer are. Finds the loops for a given offset.
class Bijection {
 public:
  // Nothing if the offset is not such a bijection.
  static std::optional<Bijection> find(const Index& offset, const std::vector<Loop>& loops,
                                       const ir::Dim& elements);
  // The value of each loop, in their order, at an offset.
  Indices loops_at(const Index& offset) const;

 private:
  std::vector<ir::Dim> extents_;
  std::vector<size_t> order_;  // of the loops, fastest first
};

// The indices of a Load, if all of them are positions.
std::optional<Indices> load_indices(const ExprNode& load);

}  // namespace kiln::plan
