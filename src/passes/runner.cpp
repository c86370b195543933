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

namespace kiln::passes {
namespace {

constexpr std::array kPasses = {
#define KILN_PASS(name, summary) PassInfo{#name, summary, name},
#include "passes/passes.def"
#undef KILN_PASS
};

// Levenshtein's distance, one row at a time.
size_t edit_distance(std::string_view a, std::string_view b) {
  std::vector<size_t> row(b.size() + 1);
  for (size_t j = 0; j <= b.size(); ++j) row[j] = j;
  for (size_t i = 1; i <= a.size(); ++i) {
    size_t diagonal = row[0];
    row[0] = i;
    for (size_t j = 1; j <= b.size(); ++j) {
      const size_t replaced = diagonal + (a[i - 1] == b[j - 1] ? 0 : 1);
      diagonal = row[j];
      row[j] = std::min({replaced, row[j] + 1, row[j - 1] + 1});
    }
  }
  return row[b.size()];
}

const PassInfo& info_of(Pass pass) {
  const auto found = std::find_if(kPasses.begin(), kPasses.end(),
                                  [&](const PassInfo& p) { return p.run == pass; });
  KILN_CHECK(found != kPasses.end(), "a pass that is not in passes.def");
  return *found;
}

void check_disabled(const std::vector<std::string>& disabled) {
  for (const std::string& name : disabled) {
    if (find_pass(name) != nullptr) continue;
    const auto nearest =
        std::min_element(kPasses.begin(), kPasses.end(), [&](const PassInfo& a, const PassInfo& b) {
          return edit_distance(name, a.name) < edit_distance(name, b.name);
        });
    throw CompileError("[passes] got \"" + name +
                       "\", expected the name of a pass; the nearest is \"" +
                       std::string(nearest->name) + "\"");
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
