#include "passes/runner.h"

#include <algorithm>
#include <array>
#include <chrono>

#include "ir/text.h"
#include "ir/verify.h"
#include "support/error.h"

namespace kiln::passes {
namespace {

constexpr std::array kPasses = {
#define KILN_PASS(name, summary) PassInfo{#name, summary, name},
#include "passes/passes.def"
#undef KILN_PASS
};

const PassInfo& info_of(Pass pass) {
  const auto found = std::find_if(kPasses.begin(), kPasses.end(),
                                  [&](const PassInfo& p) { return p.run == pass; });
  KILN_CHECK(found != kPasses.end(), "a pass that is not in passes.def");
  return *found;
}

std::vector<std::string_view> names() {
  std::vector<std::string_view> result;
  for (const PassInfo& pass : kPasses) result.push_back(pass.name);
  return result;
}

}  // namespace

std::span<const PassInfo> all_passes() { return kPasses; }

const PassInfo* find_pass(std::string_view name) {
  for (const PassInfo& info : kPasses) {
    if (info.name == name) return &info;
  }
  return nullptr;
}

Runner::Runner(ir::Graph& graph, PassContext& context, const RunOptions& options)
    : graph_(graph), context_(context), control_(options, names()) {
  dump("input");
}

bool Runner::run(Pass pass) {
  const PassInfo& info = info_of(pass);
  if (control_.is_disabled(info.name)) return false;
  const auto start = std::chrono::steady_clock::now();
  const bool changed = pass(graph_, context_);
  const std::chrono::duration<double, std::milli> time = std::chrono::steady_clock::now() - start;
  reports_.push_back({info.name, time.count(), changed});
  control_.verify("pass " + std::string(info.name), [&] { ir::verify(graph_); });
  if (changed) dump(info.name);
  return changed;
}

void Runner::dump(std::string_view name) const {
  control_.dump("", reports_.size(), std::string(name) + ".ir",
                [&] { return ir::to_text(graph_, {.types = true, .locations = true}); });
}

std::vector<PassReport> run_pipeline(ir::Graph& graph, PassContext& context,
                                     const RunOptions& options) {
  Runner runner(graph, context, options);
  standard_pipeline(runner);
  return runner.take_reports();
}

}  // namespace kiln::passes
