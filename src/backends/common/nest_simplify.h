// Loop nests in the form that code is generated from.
#pragma once

#include <functional>

#include "plan/form/program.h"

namespace kiln::backend {

// The same nest with
//   - one index, the element offset, in every load and store (Emitter::store says how it is read);
//   - no division by n of an index that a loop of extent n below another could give;
//   - adjacent loops merged where every access allows it: a pointwise nest becomes one long loop;
//   - no loops of extent 1.
plan::LoopNest simplify(const plan::Program& program, plan::LoopNest nest);

// Every Dim of a nest that depends on loops: indices of stores, positions in expressions.
void for_each_index(const plan::Stage& stage, const std::function<void(const ir::Dim&)>& visitor);
void for_each_index(const plan::LoopNest& nest, const std::function<void(const ir::Dim&)>& visitor);

}  // namespace kiln::backend
