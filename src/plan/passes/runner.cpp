#include <algorithm>

#include "plan/passes/pass.h"
#include "support/error.h"

namespace kiln::plan {
namespace {

const std::vector<PassInfo>& table() {
  static const std::vector<PassInfo> kPasses = {
#define KILN_PLAN_PASS(name, summary) {#name, summary, name},
#include "plan/passes/passes.def"
#undef KILN_PLAN_PASS
  };
  return kPasses;
}

std::vector<std::string_view> names() {
  std::vector<std::string_view> result;
  for (const PassInfo& pass : table()) result.push_back(pass.name);
  return result;
}

const PassInfo& info_of(Pass pass) {
  const auto found = std::ranges::find(table(), pass, &PassInfo::run);
  KILN_CHECK(found != table().end(), "a pass that is not in passes.def");
  return *found;
}

}  // namespace

std::span<const PassInfo> all_passes() { return table(); }

const PassInfo* find_pass(std::string_view name) {
  const auto found = std::ranges::find(table(), name, &PassInfo::name);
  return found == table().end() ? nullptr : &*found;
}

Runner::Runner(Program& program, const PlanOptions& options)
    : program_(program), control_(options, names()) {
  if (options.verify) plan::verify(program_);
  dump("lowered");
}

bool Runner::run(Pass pass) {
  const PassInfo& info = info_of(pass);
  if (control_.is_disabled(info.name)) return false;
  const bool changed = pass(program_);
  control_.verify("plan pass " + std::string(info.name), [&] { plan::verify(program_); });
  if (changed) dump(info.name);
  return changed;
}

void Runner::dump(std::string_view name) {
  control_.dump("plan_", dumps_++, std::string(name) + ".plan", [&] { return to_text(program_); });
}

}  // namespace kiln::plan
