// Arithmetic on complex numbers as pairs of real ones.
#pragma once

#include "import/ops/common.h"

namespace kiln::import {

struct Pair {
  Expr re, im;

  // An operand: a complex tensor, a real one or a number, its parts as `dtype`. What is real has one 0 as
  // its other part.
  static Pair of(Call& call, std::string_view name, DType dtype);
  // Both parts in the shape that they broadcast to.
  Complex value(Call& call) const;
};

Pair operator*(const Pair& a, const Pair& b);
Pair divide(const Pair& a, const Pair& b);

// An operator that does to each part what it does to real numbers: its importer is called for both.
std::vector<Complex> by_parts(Call& call);
// One that is linear in each tensor: the sum over all choices of a part of each, with i to the number of imaginary parts.
std::vector<Complex> by_products(Call& call);

// What the parts of the node's first result are.
DType result_part(Call& call);

}  // namespace kiln::import
