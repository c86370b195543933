#include <algorithm>
#include <array>
#include <cstdio>
#include <filesystem>
#include <fstream>

#include "plan/pass.h"
#include "support/error.h"

namespace kiln::plan {
namespace {

const std::vector<PassInfo>& table() {
  static const std::vector<PassInfo> passes = {
#define KILN_PLAN_PASS(name, summary) {#name, summary, name},
#include "plan/passes.def"
#undef KILN_PLAN_PASS
  };
  return passes;
}

// How many leading characters two names share: enough to guess what was meant.
size_t common_prefix(std::string_view a, std::string_view b) {
  return static_cast<size_t>(std::ranges::mismatch(a, b).in1 - a.begin());
}

void check_disabled(const std::vector<std::string>& disabled) {
  for (const std::string& name : disabled) {
    const auto is_name = [&](const PassInfo& pass) { return pass.name == name; };
    if (std::ranges::any_of(table(), is_name)) continue;
    const auto nearest = std::ranges::max_element(
        table(), {}, [&](const PassInfo& pass) { return common_prefix(pass.name, name); });
    throw CompileError("[passes] got \"" + name + "\", expected the name of a pass; the nearest is \"" +
                       std::string(nearest->name) + "\"");
  }
}

const PassInfo& info_of(Pass pass) {
  const auto found = std::ranges::find(table(), pass, &PassInfo::run);
  KILN_CHECK(found != table().end(), "a pass that is not in passes.def");
  return *found;
}

}  // namespace

std::span<const PassInfo> all_passes() { return table(); }

Runner::Runner(Program& program, const PlanOptions& options) : program_(program), options_(options) {
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
