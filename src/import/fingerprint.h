// What a model is, as a hash: for the engine cache.
#pragma once

#include "import/import.h"
#include "support/hash.h"

namespace kiln::import {

// Adds everything of a model that can show in its engine: nodes, their arguments and edges, names,
// types, ranges, and the dtype, shape and contents of the weights that the program refers to. What
// cannot show is left out: where nodes come from in the source, versions, spare tensors.
inline void add_fingerprint(Hasher& hasher, const Model& model) { model.add_fingerprint(hasher); }

}  // namespace kiln::import
