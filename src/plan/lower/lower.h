// ir::Graph -> plan::Program.
#pragma once

#include "ir/graph.h"
#include "plan/form/program.h"

namespace kiln::plan {

struct LowerOptions {
  // Every result of 16-bit arithmetic is rounded: computed in f32 and cast. Otherwise operators
  // that become one kernel may keep it in f32.
  bool emulate_precision_casts = false;
  // Otherwise an index that is out of range reads the first or last element, and dividing integers
  // by zero gives an unspecified value.
  bool check_bounds = true;
  // Operands of f32 may be rounded to TF32, where the target has that, in matrix products and in
  // convolutions.
  bool tf32_products = false, tf32_convolutions = false;
};

// One kernel per op (none for views), straight from the graph, in the forms that the target has.
// CompileError for an op with no lowering.
Program lower(const ir::Graph& graph, const TargetTraits& traits, const LowerOptions& options = {});

}  // namespace kiln::plan
