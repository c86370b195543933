#include "compiler/stages.h"

#include <algorithm>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "backends/common/compile_program.h"
#include "backends/common/join_programs.h"
#include "backends/common/refill.h"
#include "backends/common/tuning.h"
#include "backends/reference/reference.h"
#include "compiler/backends.h"
#include "compiler/cache_files.h"
#include "compiler/calibration.h"
#include "compiler/kernel_cache.h"
#include "compiler/timing_cache.h"
#include "passes/pass.h"
#include "plan/lower/lower.h"
#include "plan/passes/pass.h"
#include "support/error.h"
#include "support/log.h"

namespace kiln {
namespace {

#ifdef NDEBUG
constexpr bool kAlwaysVerify = false;
#else
constexpr bool kAlwaysVerify = true;
#endif

constexpr std::string_view kGenerateCode = "generate code";

// The names of disabled passes, by the pipeline that they belong to.
struct Disabled {
  std::vector<std::string> graph, plan;
};

Disabled split_disabled(const std::vector<std::string>& disabled) {
  std::vector<std::string_view> names;
  for (const passes::PassInfo& pass : passes::all_passes()) names.push_back(pass.name);
  for (const plan::PassInfo& pass : plan::all_passes()) names.push_back(pass.name);
  check_disabled(disabled, names);

  Disabled result;
  for (const std::string& name : disabled) {
    (passes::find_pass(name) != nullptr ? result.graph : result.plan).push_back(name);
  }
  return result;
}

// What is made of a replaceable weight is replaceable.
std::vector<ir::Literal> evaluate_constant(const ir::Node& node,
                                           std::span<const ir::Literal* const> inputs) {
  std::vector<ir::Literal> results =
      reference::evaluate(node, inputs, [](const ir::SymbolPtr& symbol) -> int64_t {
        throw InternalError("constant folding of a node that depends on the size " + symbol->name);
      });
  const bool replaceable = std::ranges::any_of(
      inputs, [](const ir::Literal* input) { return input != nullptr && input->replaceable; });
  for (ir::Literal& result : results) result.replaceable = replaceable;
  return results;
}

// Where plans and kernels for one target are dumped: those of several are in a folder each.
std::string target_dumps(const CompileOptions& options, const TargetOptions& target) {
  const std::string& directory = options.dump_directory;
  return directory.empty() || options.targets.size() == 1 ? directory
                                                          : directory + "/" + target.name;
}

}  // namespace

void report(const CompileOptions& options, std::string_view stage, double fraction) {
  if (options.progress) options.progress(stage, fraction);
}

void warn(const CompileOptions& options, const std::string& text) {
  log(LogLevel::Warn, text);
  if (options.warning) options.warning(text);
}

void prepare_graph(ir::Graph& graph, const CompileOptions& options) {
  const Disabled disabled = split_disabled(options.disabled_passes);
  passes::PassContext context{.evaluate = evaluate_constant,
                              .emulate_precision_casts = options.emulate_precision_casts};
  passes::run_preparation(graph, context, {disabled.graph, options.verify_passes || kAlwaysVerify});
}

std::vector<TargetPlan> plan_graph(ir::Graph graph, const CompileOptions& options,
                                   const passes::Quantisation& quantisation) {
  const bool verify = options.verify_passes || kAlwaysVerify;
  const Disabled disabled = split_disabled(options.disabled_passes);
  make_dump_directory(options.dump_directory);

  report(options, "optimise", 0.1);
  passes::PassContext context{.evaluate = evaluate_constant,
                              .emulate_precision_casts = options.emulate_precision_casts};
  context.warning = [&](const std::string& text) { warn(options, text); };
  if (quantisation.scheme != passes::Quantisation::Scheme::None)
    context.quantisation = &quantisation;
  passes::run_pipeline(graph, context, {disabled.graph, verify, options.dump_directory});

  report(options, "plan", 0.2);
  std::vector<TargetPlan> plans;
  for (const TargetOptions& target : options.targets) {
    const Backend& backend = find_backend(target.name);
    plan::Program program = plan::lower(
        graph, backend.traits_of == nullptr ? backend.traits : backend.traits_of(target.variants),
        {.emulate_precision_casts = options.emulate_precision_casts,
         .check_bounds = options.check_bounds,
         .tf32_products = (options.tf32 & engine::kTf32Products) != 0,
         .tf32_convolutions = (options.tf32 & engine::kTf32Convolutions) != 0});
    plan::run_pipeline(program, {disabled.plan, verify, target_dumps(options, target)});
    plans.push_back({target, std::move(program)});
  }
  return plans;
}

std::vector<TargetPlan> plan_model(const import::Model& model, const CompileOptions& options) {
  return plan_model(model, options, prepare_quantisation(model, options));
}

std::vector<TargetPlan> plan_model(const import::Model& model, const CompileOptions& options,
                                   const passes::Quantisation& quantisation) {
  report(options, "import", 0.0);
  const std::vector<import::DimRange> ranges = import::with_small_sizes(model, options.ranges);
  const auto plan_with = [&](std::span<const import::DimRange> chosen) {
    return plan_graph(import::import_graph(model, chosen, options.refittable), options,
                      quantisation);
  };
  if (ranges.size() == options.ranges.size()) return plan_with(ranges);
  try {
    return plan_with(ranges);
  } catch (const CompileError&) {
    return plan_with(options.ranges);  // what cannot be planned with 0 and 1 may be without
  }
}

namespace {

using Warn = std::function<void(const std::string& text)>;

// What is known of a machine's kernels, for as long as a compile takes.
class TuningRun {
 public:
  TuningRun(const CompileOptions& options, const Warn& warn) : options_(options), warn_(warn) {
    if (options.tuning.candidates <= 0) return;
    backend::Timings known;
    if (!options.tuning.cache_file.empty()) {
      Result<backend::Timings> read = TimingCache(options.tuning.cache_file).read();
      if (read.ok())
        known = std::move(*read);
      else
        warn_("tuning: " + read.status().message());
    }
    tuning_.emplace(options.tuning.candidates, std::move(known));
  }

  backend::Tuning* get() { return tuning_ ? &*tuning_ : nullptr; }

  // Keeps what was found and tells what did not work.
  void finish() {
    if (!tuning_) return;
    for (const std::string& text : tuning_->warnings()) warn_("tuning: " + text);
    const backend::Timings found = tuning_->found();
    if (found.empty() || options_.tuning.cache_file.empty()) return;
    const Status kept = TimingCache(options_.tuning.cache_file).add(found);
    if (!kept.ok()) warn_("tuning: " + kept.message());
  }

 private:
  const CompileOptions& options_;
  const Warn& warn_;
  std::optional<backend::Tuning> tuning_;
};

// Where the code of kernels is kept: beside what was measured, or beside engines. Null: nowhere.
std::unique_ptr<KernelCache> open_kernel_cache(const CompileOptions& options, const Warn& warn) {
  std::string directory;
  KernelCache::Options how;
  if (options.tuning.candidates > 0 && !options.tuning.cache_file.empty()) {
    directory = options.tuning.cache_file + ".kernels";
  } else if (!options.cache.directory.empty()) {
    // Nothing is made in a folder that is not safe, which the engine cache has told.
    if (!open_private_folder(options.cache.directory, "engine cache").ok()) return nullptr;
    directory = options.cache.directory + "/kernels";
    how.read = options.cache.read;
    how.write = options.cache.write;
    const uint64_t most = options.cache.max_bytes;
    if (most != 0) how.max_bytes = std::min(how.max_bytes, most / 8);
  }
  if (directory.empty() || (!how.read && !how.write)) return nullptr;
  Result<std::unique_ptr<KernelCache>> cache = KernelCache::open(directory, how);
  if (cache.ok()) return std::move(*cache);
  warn(cache.status().message());
  return nullptr;
}

}  // namespace

CompiledProgram compile_plans(const std::vector<TargetPlan>& plans, const CompileOptions& options) {
  report(options, kGenerateCode, 0.3);
  const Warn warn = [&](const std::string& text) { kiln::warn(options, text); };
  TuningRun tuning(options, warn);
  const std::unique_ptr<KernelCache> code = open_kernel_cache(options, warn);
  const double share = 0.65 / static_cast<double>(plans.size());
  std::vector<CompiledProgram> parts;
  for (const TargetPlan& plan : plans) {
    const double begin = 0.3 + share * static_cast<double>(parts.size());
    parts.push_back(backend::compile_program(
        find_backend(plan.target.name), plan.program,
        {.variants = plan.target.variants,
         .compile_threads = options.compile_threads,
         .dump_directory = target_dumps(options, plan.target),
         .generators = {.tuning = tuning.get(), .code = code.get()},
         .progress = [&](double done) { report(options, kGenerateCode, begin + share * done); }}));
  }
  tuning.finish();
  if (code != nullptr)
    if (const Status kept = code->finish(); !kept.ok()) warn(kept.message());
  CompiledProgram compiled = backend::join_programs(std::move(parts));
  compiled.spec.disabled_passes = options.disabled_passes;
  compiled.spec.refittable = options.refittable;
  compiled.spec.emulate_precision_casts = options.emulate_precision_casts;
  compiled.spec.unchecked = !options.check_bounds;
  compiled.spec.tf32 = options.tf32;
  compiled.spec.quantized = passes::scheme_name(options.quantisation.scheme);
  compiled.spec.metadata = options.metadata;
  return compiled;
}

std::vector<engine::ProgramConstants> contents_of(const EngineConstants& constants) {
  std::vector<engine::ProgramConstants> contents;
  for (const std::vector<ir::Literal>& literals : constants) {
    engine::ProgramConstants& program = contents.emplace_back();
    for (const ir::Literal& literal : literals) program.push_back(literal.bytes);
  }
  return contents;
}

std::vector<std::byte> write_engine(const engine::Spec& spec, const EngineConstants& constants,
                                    engine::Weights weights) {
  Result<std::vector<std::byte>> bytes = engine::write(spec, contents_of(constants), weights);
  if (!bytes.ok()) throw StatusError(bytes.status());
  return std::move(*bytes);
}

std::vector<std::byte> write_refilled(const engine::Spec& spec,
                                      const std::vector<TargetPlan>& plans,
                                      const CompileOptions& options) {
  report(options, "write", 0.95);
  EngineConstants constants(spec.programs.size());
  for (const TargetPlan& plan : plans) {
    EngineConstants made = backend::refill_constants(find_backend(plan.target.name), spec,
                                                     plan.program, options.compile_threads);
    for (size_t p = 0; p < made.size(); ++p)
      if (spec.programs[p].target == plan.target.name) constants[p] = std::move(made[p]);
  }
  return write_engine(spec, constants, weights_of(options));
}

engine::Weights weights_of(const CompileOptions& options) {
  return options.strip_weights ? engine::Weights::Stripped : engine::Weights::Included;
}

}  // namespace kiln
