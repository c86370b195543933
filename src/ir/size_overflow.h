// Sizes that have no 64-bit value. Arithmetic on Dims, Dim::evaluate included, throws for them;
// bounds and proofs know less instead, and Dim::at_opt, an estimate, ends at kDimInfinity.
#pragma once

#include <cstdint>
#include <initializer_list>

#include "support/error.h"

namespace kiln::ir {

class SizeOverflow : public CompileError {
 public:
  using CompileError::CompileError;
};

// The product, at most kDimInfinity in magnitude: for estimates, never for sizes.
int64_t saturating_product(std::initializer_list<int64_t> factors);

// What a proof says, where sizes that it computes on the way may overflow: not proven then.
template <typename Proof>
bool proven(const Proof& proof) {
  try {
    return proof();
  } catch (const SizeOverflow&) {
    return false;
  }
}

}  // namespace kiln::ir
