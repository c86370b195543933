// Non-maximum suppression, for the importers of its operators.
#pragma once

#include "import/call.h"

namespace kiln::import {

// Floating, [.., n] each; in the order of falling scores.
struct Boxes {
  ir::Value *left = nullptr, *top = nullptr, *right = nullptr, *bottom = nullptr;
  ir::Value* area = nullptr;
};

ir::Value* box_area(Call& call, const Boxes& boxes);

// Of the boxes in `kept`, bool[.., n], those that no box before them which stays overlaps by more than `threshold` of
// what both cover together.
ir::Value* surviving(Call& call, const Boxes& boxes, ir::Value* kept, double threshold);

}  // namespace kiln::import
