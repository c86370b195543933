#include "plan/form/text.h"
#include "plan/form/verify.h"
#include "plan/passes/pass.h"
#include "support/error.h"

namespace kiln::plan {
namespace {

constexpr PassInfo kPasses[] = {
#define KILN_PLAN_PASS(name, summary) {#name, summary, name},
#include "plan/passes/passes.def"
#undef KILN_PLAN_PASS
};

PassTable<PassInfo> table() { return PassTable<PassInfo>(kPasses); }

}  // namespace

std::span<const PassInfo> all_passes() { return kPasses; }

const PassInfo* find_pass(std::string_view name) { return table().find(name); }

Runner::Runner(Program& program, const PlanOptions& options, size_t first_dump)
    : program_(program), control_(options, table().names()), dumps_(first_dump) {
  if (options.verify) plan::verify(program_);
  dump("lowered");
}

bool Runner::run(Pass pass) {
  const PassInfo* info = table().find_function(pass);
  KILN_CHECK(info != nullptr, "a pass that is not in passes.def");
  if (control_.is_disabled(info->name)) return false;
  const bool changed = pass(program_);
  control_.verify("plan pass " + std::string(info->name), [&] { plan::verify(program_); });
  if (changed) dump(info->name);
  return changed;
}

void Runner::require(std::string_view name, void (*step)(Program& program)) {
  step(program_);
  control_.verify("plan step " + std::string(name), [&] { plan::verify(program_); });
  if (!program_.updates.empty()) dump(name);
}

void Runner::dump(std::string_view name) {
  control_.dump("plan_", dumps_++, std::string(name) + ".plan", [&] { return to_text(program_); });
}

}  // namespace kiln::plan
