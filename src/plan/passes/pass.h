// Passes over programs: the table and the runner.
#pragma once

#include <span>
#include <string_view>

#include "plan/form/program.h"
#include "support/pass_control.h"

namespace kiln::plan {

// Returns whether it changed the program. One .cpp per pass; declared by passes.def.
using Pass = bool (*)(Program& program);

#define KILN_PLAN_PASS(name, summary) bool name(Program& program);
#include "plan/passes/passes.def"
#undef KILN_PLAN_PASS

struct PassInfo {
  std::string_view name, summary;
  Pass run;
};
std::span<const PassInfo> all_passes();
// Null if there is no pass of that name.
const PassInfo* find_pass(std::string_view name);

// Outputs that update inputs are written to the memory of these: no pass, since nothing may leave it
// out. Kernels do not move afterwards.
void update_inputs(Program& program);

using PlanOptions = PassOptions;  // dumps are plan_NNN_name.plan
// The standard order of the passes, by what program.traits says of the target: passes/pipeline.cpp.
void run_pipeline(Program& program, const PlanOptions& options);

// The dumps, the verifier and the list of disabled passes. Passes know nothing of these.
class Runner {
 public:
  // Dumps are numbered from `first_dump` on.
  Runner(Program& program, const PlanOptions& options, size_t first_dump = 0);
  // Returns whether the pass changed the program; false for a disabled one.
  bool run(Pass pass);
  // What no program goes without.
  void require(std::string_view name, void (*step)(Program& program));
  size_t dumps() const { return dumps_; }  // the number of the next

 private:
  void dump(std::string_view name);

  Program& program_;
  PassControl control_;
  size_t dumps_;
};

}  // namespace kiln::plan
