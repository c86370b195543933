#include <algorithm>
#include <array>
#include <cstdio>
#include <filesystem>
#include <fstream>

#include "plan/pass.h"
#include "support/error.h"
#include "support/nearest.h"

namespace kiln::plan {
namespace {

const std::vector<PassInfo>& table() {
  static const std::vector<PassInfo> kPasses = {
#define KILN_PLAN_PASS(name, summary) {#name, summary, name},
#include "plan/passes.def"
#undef KILN_PLAN_PASS
  };
  return kPasses;
}

void check_disabled(const std::vector<std::string>& disabled) {
  std::vector<std::string_view> names;
  for (const PassInfo& pass : table()) names.push_back(pass.name);
  for (const std::string& name : disabled) {
    if (std::ranges::find(names, name) != names.end()) continue;
    throw CompileError("[passes] got \"" + name +
                       "\", expected the name of a pass; the nearest is \"" +
                       std::string(nearest_name(name, names)) + "\"");
  }
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
    : program_(program), options_(options) {
  check_disabled(options.disabled);
  if (options_.verify) verify(program_);
  dump("lowered");
}

bool Runner::run(Pass pass) {
  const PassInfo& info = info_of(pass);
  if (std::ranges::find(options_.disabled, info.name) != options_.disabled.end()) return false;
  const bool changed = pass(program_);
  if (options_.verify) {
    try {
      verify(program_);
    } catch (const InternalError& error) {
      throw InternalError("after plan pass " + std::string(info.name) + ": " + error.what());
    }
  }
  if (changed) dump(info.name);
  return changed;
}

void Runner::dump(std::string_view name) {
  if (options_.dump_directory.empty()) return;
  std::array<char, 16> number;
  std::snprintf(number.data(), number.size(), "%03d_", dumps_++);
  const std::string file = std::string("plan_") + number.data() + std::string(name) + ".plan";
  const std::filesystem::path path = std::filesystem::path(options_.dump_directory) / file;
  std::ofstream out(path);
  out << to_text(program_);
  if (!out.flush()) throw CompileError("[passes] cannot write " + path.string());
}

}  // namespace kiln::plan
