#include "passes/runner.h"

#include <algorithm>
#include <array>
#include <chrono>
#include <cstdio>
#include <filesystem>
#include <fstream>

#include "ir/text.h"
#include "ir/verify.h"
#include "support/error.h"
#include "support/nearest.h"

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

void check_disabled(const std::vector<std::string>& disabled) {
  std::vector<std::string_view> names;
  for (const PassInfo& pass : kPasses) names.push_back(pass.name);
  for (const std::string& name : disabled) {
    if (find_pass(name) != nullptr) continue;
    throw CompileError("[passes] got \"" + name +
                       "\", expected the name of a pass; the nearest is \"" +
                       std::string(nearest_name(name, names)) + "\"");
  }
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
    : graph_(graph), context_(context), options_(options) {
  check_disabled(options.disabled);
  if (options.dump_directory.empty()) return;
  std::error_code error;
  std::filesystem::create_directories(options.dump_directory, error);
  if (error) {
    throw CompileError("[passes] cannot make " + options.dump_directory + ": " + error.message());
  }
  dump("input");
}

bool Runner::run(Pass pass) {
  const PassInfo& info = info_of(pass);
  const auto& disabled = options_.disabled;
  if (std::find(disabled.begin(), disabled.end(), info.name) != disabled.end()) return false;
  const auto start = std::chrono::steady_clock::now();
  const bool changed = pass(graph_, context_);
  const std::chrono::duration<double, std::milli> time = std::chrono::steady_clock::now() - start;
  reports_.push_back({info.name, time.count(), changed});
  if (options_.verify) {
    try {
      ir::verify(graph_);
    } catch (const InternalError& error) {
      throw InternalError("after pass " + std::string(info.name) + ": " + error.what());
    }
  }
  if (changed) dump(info.name);
  return changed;
}

void Runner::dump(std::string_view name) const {
  if (options_.dump_directory.empty()) return;
  std::array<char, 16> number;
  std::snprintf(number.data(), number.size(), "%03zu_", reports_.size());
  const std::string file = number.data() + std::string(name) + ".ir";
  const std::filesystem::path path = std::filesystem::path(options_.dump_directory) / file;
  std::ofstream out(path);
  out << ir::to_text(graph_, {.types = true, .locations = true});
  if (!out.flush()) throw CompileError("[passes] cannot write " + path.string());
}

std::vector<PassReport> run_pipeline(ir::Graph& graph, PassContext& context,
                                     const RunOptions& options) {
  Runner runner(graph, context, options);
  standard_pipeline(runner);
  return runner.take_reports();
}

}  // namespace kiln::passes
