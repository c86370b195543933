#include "passes/runner.h"

#include <chrono>

#include "ir/text.h"
#include "ir/verify.h"
#include "support/error.h"

namespace kiln::passes {
namespace {

constexpr PassInfo kPasses[] = {
#define KILN_PASS(name, summary) {#name, summary, name},
#include "passes/passes.def"
#undef KILN_PASS
};

PassTable<PassInfo> table() { return PassTable<PassInfo>(kPasses); }

}  // namespace

std::span<const PassInfo> all_passes() { return kPasses; }

const PassInfo* find_pass(std::string_view name) { return table().find(name); }

Runner::Runner(ir::Graph& graph, PassContext& context, const RunOptions& options)
    : graph_(graph), context_(context), control_(options, table().names()) {
  dump("input");
}

bool Runner::run(Pass pass) {
  const PassInfo* info = table().find_function(pass);
  KILN_CHECK(info != nullptr, "a pass that is not in passes.def");
  if (control_.is_disabled(info->name)) return false;
  const auto start = std::chrono::steady_clock::now();
  const bool changed = pass(graph_, context_);
  const std::chrono::duration<double, std::milli> time = std::chrono::steady_clock::now() - start;
  reports_.push_back({info->name, time.count(), changed});
  control_.verify("pass " + std::string(info->name), [&] { ir::verify(graph_); });
  if (changed) dump(info->name);
  return changed;
}

void Runner::dump(std::string_view name) const {
  control_.dump("", reports_.size(), std::string(name) + ".ir",
                [&] { return ir::to_text(graph_, {.types = true, .locations = true}); });
}

std::vector<PassReport> run_preparation(ir::Graph& graph, PassContext& context,
                                        const RunOptions& options) {
  Runner runner(graph, context, options);
  preparation(runner);
  return runner.take_reports();
}

std::vector<PassReport> run_pipeline(ir::Graph& graph, PassContext& context,
                                     const RunOptions& options) {
  // Graphs of nodes first, so that what depends on them sees what they became. Dumps of the outer one show them.
  RunOptions inner = options;
  inner.dump_directory.clear();
  for (const auto& node : graph.nodes())
    if (node->op == ir::Op::repeat)
      run_pipeline(*node->attr<std::shared_ptr<ir::Graph>>("body"), context, inner);
  Runner runner(graph, context, options);
  standard_pipeline(runner);
  return runner.take_reports();
}

}  // namespace kiln::passes
