// Stores whose lanes lie a few elements apart, with what lies between them: the channels of an image that becomes
// channels-last.
//
// All of a group of neighbouring elements are computed, a vector of lanes each, and shuffled into the order of memory.
#pragma once

#include <optional>

#include "backends/cpu/compile/emit/emitter.h"

namespace kiln::cpu {

struct Interleaved {
  size_t lane = 0;  // outer loop that vectors run along
  size_t channel =
      0;  // outer loop of the neighbours: of few points, with a stride of 1 in the store
};

// Nothing if the nest is not one store of this form. The nest is simplified.
std::optional<Interleaved> find_interleaved(const plan::LoopNest& nest, size_t lane);

// Gives the most points of the outer loops that a task is.
ir::Dim emit_interleaved_nest(Emitter& emitter, const plan::LoopNest& nest,
                              const Interleaved& interleaved);

}  // namespace kiln::cpu
