// Reductions over a small window that slides over an image: depthwise convolution, pooling.
//
// Several neighbouring pixels of a row are computed at once, so that what does not depend on the
// pixel (the weights) is loaded once for all. Tiles of pixels whose windows touch the left or right
// border are code of their own, in which every bounds check is decided at compile time; in the
// others none is left. Rows of the window outside of the image are skipped by one check per row.
#pragma once

#include <optional>
#include <vector>

#include "backends/cpu/compile/emit/emitter.h"

namespace kiln::cpu {

struct Window {
  size_t lane = 0;   // outer loop that vectors run along
  size_t pixel = 0;  // outer loop that tiles run along; its extent is constant
  size_t tap = 0;    // the window's loop that moves with it: it is unrolled

  // What must hold for a row of the window to lie in the image; where it does not, the row adds
  // nothing. Null: nothing must.
  plan::Expr row_guard;
  // What must hold for a tap of it, given the row; null: nothing must.
  plan::Expr tap_guard;
  // The reduced value where both guards hold.
  plan::Expr value;

  // `count` tiles of `pixels` pixels each, from pixel `first` on.
  struct Tiles {
    int64_t first = 0, pixels = 0, count = 1;
  };
  std::vector<Tiles> tiles;
};

// Nothing if the nest is not of this form.
std::optional<Window> find_window(const plan::LoopNest& nest, size_t lane);

// Gives the most points of the outer loops that a task is.
ir::Dim emit_window_nest(Emitter& emitter, const plan::LoopNest& nest, const Window& window);

}  // namespace kiln::cpu
