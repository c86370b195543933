// Few rows times a weight of 4 bits on targets without tables of 16 floats (vpermps of AVX-512): bytes are looked up instead.
//
// An integer from -8 to 7 is a bf16, and its upper and its lower byte are each one of 16 (vpshufb). Interleaved they are
// pairs of bf16 as in micro_kernel.h, a shift and a mask away from f32: 27 operations for 64 elements, where
// shifting, extending and converting each would take 32. Interleaving leaves two steps of a column side by side, so a vector has four columns
// of two steps each; it meets the two elements of A side by side as well, and neighbours are added when the group
// ends (vhaddps), which brings columns into their order.
#pragma once

#include "backends/cpu/compile/contract/group_panel.h"

namespace kiln::cpu {

bool looks_up(const Target& target, const GroupFormat& format);

// multiply_groups() where looks_up(). Steps of A lie one after another.
Accumulators multiply_looked_up(Emitter& emitter, Tile tile, const GroupFormat& format,
                                const GroupRows& rows, const GroupColumns& columns);

}  // namespace kiln::cpu
