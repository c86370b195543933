// ir::Graph -> plan::Program, and the passes over programs.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "ir/graph.h"
#include "plan/form/program.h"
#include "support/pass_control.h"

namespace kiln::plan {

struct LowerOptions {
  // Every result of 16-bit arithmetic is rounded: computed in f32 and cast. Otherwise operators
  // that become one kernel may keep it in f32.
  bool emulate_precision_casts = false;
  // Otherwise an index that is out of range reads the first or last element, and dividing integers
  // by zero gives an unspecified value.
  bool check_bounds = true;
};

// One kernel per op (none for views), straight from the graph. CompileError for an op with no
// lowering.
Program lower(const ir::Graph& graph, const LowerOptions& options = {});

using PlanOptions = PassOptions;  // dumps are plan_NNN_name.plan
// Fusion of loop nests, epilogue fusion, in-place reuse: plan/pipeline.cpp.
void run_pipeline(Program& program, const PlanOptions& options);

// InternalError that names the rule of docs/plan.md and the kernel.
void verify(const Program& program);
std::string to_text(const Program& program);

// Interprets a program kernel by kernel on concrete inputs: the oracle for fusion and for backends.
std::vector<ir::Literal> interpret(const Program& program, std::span<const ir::Literal> inputs);

// First and last kernel that touches each temporary (aliases count for their root); {-1, -1} for
// other buffers.
struct Lifetime {
  int32_t first = -1, last = -1;
};
std::vector<Lifetime> lifetimes(const Program& program);

}  // namespace kiln::plan
