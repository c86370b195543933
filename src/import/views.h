// Operators whose results may be views: other names for memory of their operands.
#pragma once

#include <cstdint>
#include <string_view>

namespace kiln::import {

// How what a view has is put back into what it is a view of.
enum class Back : uint8_t {
  None,      // not: it may be a copy, or shows an element twice
  Same,      // the view has the same elements in the same order and shape
  Reshape,   // the same elements in the same order
  Again,     // the view of the view: transpose
  Permute,   // the inverse order of dimensions
  Scatter,   // select_scatter and its like, with the view's own arguments
  Narrow,    // slice_scatter of start and length
  Pieces,    // one of several slices
  Elements,  // one of several selections
};

struct ViewRule {
  std::string_view name;  // "slice" of "torch.ops.aten.slice.Tensor"
  Back back;
};

// Null for an operator whose results always have memory of their own. In-place operators are none of
// these: see import/mutation.h.
const ViewRule* find_view(std::string_view operator_name);

}  // namespace kiln::import
